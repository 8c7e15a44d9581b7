import json
from dataclasses import asdict
from typing import Any

import pytest

from muquant import InputError
from muquant.training.feedback import FeedbackConfig


def test_the_defaults_are_the_papers_numbers_and_our_reading_of_what_it_leaves_open() -> None:
    assert asdict(FeedbackConfig()) == {
        "rounds": 3,
        "start": 0.4,
        "high_share": 0.2,
        "low_share": 0.5,
        "high_samples": 20,
        "medium_samples": 100,
        "low_samples": 150,
        "directions": 200,
        "nearest": 40,
        "direction_kind": "random",
        "placed_from": 1.5,
        "placed_to": 2.0,
        "cap": 16.0,
        "bisections": 12,
        "robustness_samples": 50,
    }
    assert [FeedbackConfig().samples(level) for level in ("high", "medium", "low")] == [20, 100, 150]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rounds": 0}, "rounds: expected 1 to 1e[+]06, found 0"),
        ({"rounds": 2.5}, "rounds: expected int, found 2.5"),
        ({"rounds": True}, "rounds: expected int, found True"),
        ({"start": 1.0}, "start: expected 0 to 1, found 1.0"),
        ({"cap": "16"}, "cap: expected float, found '16'"),
        ({"cap": float("nan")}, "cap: expected 0.001 to 1000, found nan"),
        ({"nearest": 41, "directions": 40}, "nearest: expected 1 to 40, found 41"),
        ({"nearest": 0}, "nearest: expected 1 to 200, found 0"),
        ({"low_share": 0.9}, "low_share: expected 0 to 0.8, found 0.9"),
        ({"high_share": 1.1}, "high_share: expected 0 to 1, found 1.1"),
        ({"high_samples": -1}, "high_samples: expected 0 to 1e[+]06, found -1"),
        ({"placed_from": 0.9}, "placed_from: expected 1 to 100, found 0.9"),
        ({"placed_to": 1.4}, "placed_to: expected 1.5 to 100, found 1.4"),
        ({"bisections": 21}, "bisections: expected 1 to 20, found 21"),
        ({"robustness_samples": 0}, "robustness_samples: expected 1 to 1e[+]06, found 0"),
        (
            {"direction_kind": "south"},
            "direction kind 'south' is unknown; expected one of random, class-means",
        ),
    ],
)
def test_a_value_that_cannot_be_used_is_named(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        FeedbackConfig(**options)


def test_whole_numbers_pass_for_fractions() -> None:
    assert FeedbackConfig(cap=8, placed_to=2).cap == 8


@pytest.mark.parametrize(
    ("rounds", "start", "epochs", "expected"),
    [
        (3, 0.4, 10, {4: 1, 6: 2, 8: 3}),
        (3, 0.0, 6, {0: 1, 2: 2, 4: 3}),
        (3, 0.0, 3, {0: 1, 1: 2, 2: 3}),
        (3, 0.4, 8, {3: 1, 4: 2, 6: 3}),
        (2, 0.5, 9, {4: 1, 6: 2}),
        (1, 0.9, 10, {9: 1}),
    ],
)
def test_rounds_are_spread_over_the_epochs_after_the_start(
    rounds: int, start: float, epochs: int, expected: dict[int, int]
) -> None:
    assert FeedbackConfig(rounds=rounds, start=start).round_epochs(epochs) == expected


def test_more_rounds_than_epochs_are_refused() -> None:
    with pytest.raises(InputError, match=r"3 rounds .* in 4 epochs: .* found 2 after the first 2; give more"):
        FeedbackConfig(rounds=3, start=0.4).round_epochs(4)


def test_it_survives_json_unchanged() -> None:
    config = FeedbackConfig(rounds=2, start=0.25, cap=8, placed_to=3.5)
    assert FeedbackConfig.from_dict(json.loads(json.dumps(asdict(config)))) == config


@pytest.mark.parametrize("document", [None, [], {}, asdict(FeedbackConfig()) | {"surprise": 1}])
def test_a_foreign_document_is_refused(document: object) -> None:
    with pytest.raises(InputError, match="options of feedback learning: expected the fields"):
        FeedbackConfig.from_dict(document)
