"""`muquant train`: its groups of options, and what a run says."""

import json
from pathlib import Path
from typing import Any

import pytest

from muquant.training import read_run

from .conftest import fails, invoke, invoke_json

QUICK = ("--data", "digits", "--model", "cnn4-small", "--epochs", 1, "--batch-size", 128, "--augment", "none")


def adversarial(run: Path) -> Any:
    return json.loads((run / "config.json").read_text())["config"]["adversarial"]


def test_adversarial_options_reach_the_run(tmp_path: Path) -> None:
    options = (
        "--epsilon",
        "26/255",
        "--attack-steps",
        2,
        "--attack-step-size",
        0.07,
        "--epsilon-warmup",
        0.5,
    )
    document = invoke_json(
        "train", *QUICK, "--method", "adversarial", *options, "--keep", "best", "-o", tmp_path / "run"
    )
    expected = {
        "epsilon": 26 / 255,
        "attack_steps": 2,
        "attack_step_size": 0.07,
        "epsilon_warmup": 0.5,
        "trades": 0.0,
    }
    assert adversarial(tmp_path / "run") == document["config"]["adversarial"] == expected
    assert read_run(tmp_path / "run").config.adversarial is not None
    assert 0 <= document["robust_accuracy"] <= document["validation_accuracy"] <= 1
    assert document["kept_epoch"] == 1


def test_a_resumed_run_with_another_option_of_a_group_is_refused(tmp_path: Path) -> None:
    start = (*QUICK, "--method", "adversarial", "-o", tmp_path / "run", "--resume")
    invoke_json("train", *start, "--epsilon", 0.1, "--attack-steps", 1)
    message = fails("train", *start, "--epsilon", 0.2, "--attack-steps", 1)
    assert "adversarial.epsilon was 0.1 and is now 0.2" in message


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--trades", 6), ("options of adversarial training with method standard",)),
        (("--method", "adversarial"), ("digits has no usual epsilon", "--epsilon")),
        (("--method", "adversarial", "--epsilon", 2), ("epsilon", "below 1")),
        (("--method", "adversarial", "--epsilon", 0.1, "--attack-steps", 0), ("attack_steps", "at least 1")),
        (("--keep", "best", "--validation", 0), ("keep", "held-out")),
    ],
)
def test_a_bad_option_leaves_nothing(
    options: tuple[object, ...], words: tuple[str, ...], tmp_path: Path
) -> None:
    message = fails("train", *QUICK, *options, "-o", tmp_path / "run")
    assert all(word in message for word in words), message
    assert list(tmp_path.iterdir()) == []


def test_an_epsilon_that_is_no_number_is_status_2(tmp_path: Path) -> None:
    result = invoke("train", "--method", "adversarial", "--epsilon", "much", "-o", tmp_path / "run")
    assert result.exit_code == 2
    assert "8/255" in result.stderr
