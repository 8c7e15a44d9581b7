import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import torch

from muquant import InputError
from muquant.data import Dataset
from muquant.training.feedback import FeedbackConfig, FeedbackRound, generate
from muquant.training.feedback.journal import Journal, Record

if TYPE_CHECKING:
    from tests.muquant.training.feedback.conftest import Linear

CONFIG = FeedbackConfig(
    directions=20,
    nearest=3,
    cap=0.5,
    high_samples=1,
    medium_samples=1,
    low_samples=1,
    robustness_samples=1,
)


@pytest.fixture
def made(linear: "Linear", grey: Dataset) -> FeedbackRound:
    return generate(linear, grey, CONFIG, 0, 1)


@pytest.fixture
def journal(grey: Dataset, tmp_path: Path) -> Journal:
    return Journal(tmp_path / "feedback", grey.classes, CONFIG.cap)


@pytest.mark.slow
def test_rounds_and_the_end_are_kept(
    journal: Journal, made: FeedbackRound, grey: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[dict[str, list[float]]] = []

    def draw(margins: dict[str, torch.Tensor], classes: tuple[str, ...], cap: float, path: Path) -> None:
        drawn.append({name: values.tolist() for name, values in margins.items()})
        assert (classes, cap, path.name) == (grey.classes, 0.5, "class-margins.png")

    monkeypatch.setattr("muquant.training.feedback.journal.plot_class_margins", draw)
    first = replace(made, class_margins=torch.tensor([0.5, 0.25, torch.inf, 0.0]))
    journal.add_round(first, grey, epoch=2, seconds=1.23456)
    journal.add_end(torch.tensor([1.0, 2.0, 3.0, 4.0]), epoch=5, seconds=0.5)
    lines = [json.loads(line) for line in journal.log.read_text().splitlines()]
    assert lines == [
        {
            "round": 1,
            "epoch": 2,
            "class_margins": [0.5, 0.25, None, 0.0],
            "levels": list(made.levels),
            "examples": len(made),
            "seconds": 1.235,
            "forwards": made.forwards,
        },
        {
            "round": None,
            "epoch": 5,
            "class_margins": [1.0, 2.0, 3.0, 4.0],
            "levels": [],
            "examples": 0,
            "seconds": 0.5,
            "forwards": None,
        },
    ]
    assert [record.class_margins for record in journal.records()] == [(0.5, 0.25, None, 0.0), (1, 2, 3, 4)]
    assert drawn == [
        {"before round 1": [0.5, 0.25, torch.inf, 0.0]},
        {"before round 1": [0.5, 0.25, torch.inf, 0.0], "at the end": [1.0, 2.0, 3.0, 4.0]},
    ]
    assert sorted(path.name for path in journal.folder.iterdir()) == ["round-1.png", "rounds.jsonl"]


def test_a_round_that_is_made_again_replaces_itself_and_what_came_after(
    journal: Journal, made: FeedbackRound, grey: Dataset
) -> None:
    empty = {name: getattr(made, name)[:0] for name in ("images", "labels", "sources", "margins", "factors")}
    for number, epoch in ((1, 2), (2, 4), (3, 5), (2, 4)):
        journal.add_round(replace(made, number=number, **empty), grey, epoch, 0.0)
    journal.add_end(made.class_margins, 6, 0.0)
    journal.add_end(made.class_margins, 6, 0.0)
    assert [record.when for record in journal.records()] == ["before round 1", "before round 2", "at the end"]
    assert sorted(path.name for path in journal.folder.iterdir()) == ["class-margins.png", "rounds.jsonl"]


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b'{"round": 1}',
        json.dumps({**vars(Record(1, 2, (1.0,)))}).encode(),  # of four classes
        json.dumps({**vars(Record(1, 2, (1.0,) * 4)), "epoch": "2"}).encode(),
        json.dumps({**vars(Record(1, 2, (1.0,) * 4)), "class_margins": ["x"] * 4}).encode(),
        json.dumps({**vars(Record(1, 2, (1.0,) * 4)), "class_margins": 1}).encode(),
        b"\xff",
    ],
)
def test_a_damaged_log_is_named(line: bytes, journal: Journal) -> None:
    journal.folder.mkdir()
    good = json.dumps(vars(Record(1, 2, (1.0,) * 4))).encode()
    journal.log.write_bytes(good + b"\n" + line + b"\n")
    with pytest.raises(InputError, match=r"rounds\.jsonl, line 2: expected a round of this run, found b'"):
        journal.records()
    journal.log.write_bytes(good + b"\n")
    assert len(journal.records()) == 1


def test_without_a_log_there_are_no_records(journal: Journal) -> None:
    assert journal.records() == ()
