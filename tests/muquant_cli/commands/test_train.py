"""`muquant train`: its groups of options, and what a run says."""

import json
import os
import subprocess
import sys
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import pytest
import torch

import muquant
from muquant.data import load_dataset
from muquant.models import build_model
from muquant.models.evaluation import logits
from muquant.training import AdversarialOptions, QatOptions, TrainingConfig, load_run, read_run
from muquant.training.feedback import FeedbackConfig
from muquant.training.options.ibp import IbpOptions

from ..conftest import fails, invoke, invoke_json

pytestmark = pytest.mark.slow
QUICK = ("--data", "digits", "--model", "cnn4-small", "--epochs", 1, "--batch-size", 128, "--augment", "none")


def test_every_training_option_is_on_the_command_line() -> None:
    text = invoke("train", "--help").stdout
    groups = ("adversarial", "feedback", "ibp", "qat")
    plain = [field.name for field in fields(TrainingConfig) if field.name not in groups]
    attack = [field.name for field in fields(AdversarialOptions)]
    format_ = [f"qat_{field.name}" for field in fields(QatOptions) if field.name != "overrides"]
    feedback = [f"feedback_{field.name}" for field in fields(FeedbackConfig)]
    certified = [f"ibp_{field.name}" for field in fields(IbpOptions)]
    for name in (*plain, *attack, *feedback, *certified, *format_, "qat", "init", "teacher", "max_seconds"):
        assert f"--{name.replace('_', '-')} " in text, name


def adversarial(run: Path) -> Any:
    return json.loads((run / "config.json").read_text())["config"]["adversarial"]


def test_adversarial_options_reach_the_run(tmp_path: Path) -> None:
    options = (
        "--method",
        "adversarial",
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
        "train", *QUICK, *options, "--keep", "best", "--average", 0.5, "-o", tmp_path / "run"
    )
    expected = {
        "epsilon": 26 / 255,
        "attack_steps": 2,
        "attack_step_size": 0.07,
        "epsilon_warmup": 0.5,
        "trades": 0.0,
        "attack": "pgd",
        "awp": 0.0,
    }
    assert adversarial(tmp_path / "run") == document["config"]["adversarial"] == expected
    config = read_run(tmp_path / "run").config
    assert (config.adversarial is not None, config.average) == (True, 0.5)
    assert 0 <= document["robust_accuracy"] <= document["validation_accuracy"] <= 1
    assert document["kept_epoch"] == 1


def test_feedback_options_reach_the_run(run: Path, tmp_path: Path) -> None:
    given = {
        "rounds": 1,
        "start": 0.0,
        "high_share": 0.3,
        "low_share": 0.4,
        "high_samples": 1,
        "medium_samples": 2,
        "low_samples": 3,
        "directions": 12,
        "nearest": 4,
        "direction_kind": "class-means",
        "placed_from": 1.25,
        "placed_to": 1.75,
        "cap": 12.0,
        "bisections": 9,
        "robustness_samples": 3,
    }
    assert set(given) == {field.name for field in fields(FeedbackConfig)}
    assert all(given[name] != value for name, value in asdict(FeedbackConfig()).items())
    options = [
        word for name, value in given.items() for word in (f"--feedback-{name.replace('_', '-')}", value)
    ]
    document = invoke_json(
        "train", *QUICK, "--method", "feedback", *options, "--init", run, "-o", tmp_path / "run"
    )
    assert document["config"]["feedback"] == given
    assert read_run(tmp_path / "run").config.feedback == FeedbackConfig(**given)  # type: ignore[arg-type]
    lines = (tmp_path / "run" / "feedback" / "rounds.jsonl").read_text().splitlines()
    assert [json.loads(line)["round"] for line in lines] == [1, None]


def test_a_resumed_run_with_another_option_of_a_group_is_refused(tmp_path: Path) -> None:
    start = (*QUICK, "--method", "adversarial", "-o", tmp_path / "run", "--resume")
    invoke_json("train", *start, "--epsilon", 0.1, "--attack-steps", 1)
    message = fails("train", *start, "--epsilon", 0.2, "--attack-steps", 1)
    assert "adversarial.epsilon was 0.1 and is now 0.2" in message


def test_what_stays_float_in_training_for_few_bits_is_said(tmp_path: Path) -> None:
    options = ("train", *QUICK, "--qat", "--qat-layers", "conv2", "-o", tmp_path / "run")
    document = invoke_json(*options)
    images = load_dataset("digits", "test")
    model = build_model("cnn4-small", images.input_shape, len(images.classes))
    sizes = {name: 4 * value.numel() for name, value in model.state_dict().items()}
    total, kept = sum(sizes.values()), sum(sizes.values()) - sizes["conv2.weight"]
    assert {each["name"]: each["nbytes"] for each in document["left_alone"]} == {
        name: size for name, size in sizes.items() if name != "conv2.weight"
    }
    lines = invoke(*options, "--resume").stdout.splitlines()
    assert f"{kept:,} of {total:,} bytes of weights stay float" in lines
    assert f"Less than half was trained for few bits: {total - kept:,} of {total:,} bytes" in lines


@pytest.mark.parametrize("width", ["3", "3,conv1=8,fc.*=2"])
def test_what_was_trained_for_few_bits_is_compressed_bit_for_bit(
    width: str, run: Path, tmp_path: Path
) -> None:
    options = (*QUICK, "--init", run, "--qat", "--qat-bits", width, "-o", tmp_path / "run")
    assert invoke_json("train", *options)["test_accuracy"] > 0.7
    invoke_json("compress", tmp_path / "run", "-o", tmp_path / "model.mq")
    images = load_dataset("digits", "test")
    trained, frozen = load_run(tmp_path / "run"), muquant.load(tmp_path / "model.mq")
    assert torch.equal(logits(frozen.module, images), logits(trained, images))
    bits = {name: tensor.spec.bits for name, tensor in frozen.tensors.items()}
    assert list(bits.values()) == ([3, 3, 3, 3] if width == "3" else [8, 3, 2, 2])
    message = fails("compress", tmp_path / "run", "-o", tmp_path / "other.mq", "--bits", 4)
    assert "prepared for quantization-aware training" in message


def test_a_run_stops_in_time_and_is_resumed(tmp_path: Path) -> None:
    options = (*QUICK, "--epochs", 3)
    whole = invoke_json("train", *options, "-o", tmp_path / "whole")
    result = invoke("train", *options, "-o", tmp_path / "run", "--max-seconds", 0)
    assert result.exit_code == 0
    text = " ".join(result.stdout.split())
    assert "stopped after step 1 of 30 (epoch 1)" in text
    assert "--resume" in text
    document = invoke_json("train", *options, "-o", tmp_path / "run", "--max-seconds", 0, "--resume")
    assert document["finished"] is False
    found = invoke_json("train", *options, "-o", tmp_path / "run", "--max-seconds", 600, "--resume")
    assert found["finished"] is True
    for document in (found, whole):
        for epoch in document["history"]:
            del epoch["seconds"]
    assert found["history"] == whole["history"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--trades", 6), ("options of adversarial training with method standard",)),
        (("--method", "adversarial"), ("digits has no usual epsilon", "--epsilon")),
        (("--method", "adversarial", "--epsilon", 2), ("epsilon", "below 1")),
        (("--method", "adversarial", "--epsilon", 0.1, "--attack-steps", 0), ("attack_steps", "at least 1")),
        (("--feedback-rounds", 2), ("options of feedback training with method standard",)),
        (("--method", "feedback"), ("3 rounds of feedback learning in 1 epochs", "fewer rounds")),
        (("--method", "feedback", "--feedback-cap", 0), ("feedback option cap", "found 0.0")),
        (("--keep", "best", "--validation", 0), ("keep", "held-out")),
        (("--qat-bits", 4), ("--qat-bits without --qat",)),
        (("--qat", "--qat-bits", 9), ("bits is 9",)),
        (("--qat", "--qat-bits", "3,conv1"), ("is '3,conv1'", "conv1=8")),
        (("--qat", "--qat-layers", "fc9"), ("fc9", "conv1, conv2, fc1, fc2")),
        (("--init", "nowhere"), ("nowhere",)),
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


def test_a_share_that_is_no_number_is_not_called_an_epsilon(tmp_path: Path) -> None:
    result = invoke("train", "--average", "half", "-o", tmp_path / "run")
    assert result.exit_code == 2
    assert "'--average': expected a number" in result.stderr
    assert "epsilon" not in result.stderr


@pytest.mark.parametrize("fast", [False, True])
def test_slow_arithmetic_is_said_before_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fast: bool
) -> None:
    monkeypatch.setattr("muquant_cli.steps.training.computes_bf16", lambda device: fast)
    result = invoke("train", *QUICK, "--precision", "bf16", "-o", tmp_path / "run")
    assert ("no instructions for bf16" in result.stdout + result.stderr) is not fast
    assert "no instructions" not in invoke("train", *QUICK, "-o", tmp_path / "plain").output


def test_torchrun_shares_a_run_as_the_readme_says(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "muquant_cli"]
    options = ["--data", "digits", "--model", "cnn4-small", "--epochs", "1", "--batch-size", "64", "--json"]
    done = subprocess.run(
        [*torchrun, "train", *options, "--device", "cpu", "--out", str(tmp_path / "run")],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["finished"]  # the first process alone has printed
    assert read_run(tmp_path / "run").config.batch_size == 64


def test_a_teacher_is_named_like_any_model(tmp_path: Path) -> None:
    attack = ("--method", "adversarial", "--epsilon", 0.1, "--attack-steps", 1)
    teacher = tmp_path / "teacher"
    invoke("train", *QUICK, *attack, "-o", teacher)
    invoke("train", *QUICK, *attack, "--teacher", teacher, "-o", tmp_path / "student")
    assert json.loads((tmp_path / "student" / "config.json").read_text())["teacher"]
    result = fails("train", *QUICK, "--teacher", teacher, "-o", tmp_path / "other")
    assert "a teacher with method standard" in result
