"""A run that is stopped anywhere and resumed ends like the one that never stopped, bit for bit."""

import itertools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from muquant.base.errors import InputError
from muquant.base.tensor_files import read_tensors, write_tensors
from muquant.data import DATASETS, Dataset, DatasetEntry, DatasetRequest
from muquant.training import (
    AdversarialOptions,
    Batch,
    BatchLoss,
    QatOptions,
    TrainingConfig,
    TrainingProgress,
    load_run,
    train,
)
from muquant.training.run.state import CHECKPOINT_SCHEMA

from ..conftest import method_of, plug_in

pytestmark = pytest.mark.slow
Tiny = Callable[..., TrainingConfig]


class Stop(Exception):  # noqa: N818  # not an error
    """Raised by a progress callback."""


def stop_after(step: int) -> Callable[[TrainingProgress], None]:
    def on_progress(progress: TrainingProgress) -> None:
        if progress.step == step:
            raise Stop

    return on_progress


def noisy(batch: Batch) -> BatchLoss:
    """A method that draws from both sources of randomness that it may use."""
    noise = torch.rand(batch.inputs.shape, generator=batch.generator)
    logits = batch.model(functional.dropout(batch.inputs + 0.1 * noise, 0.2))
    return BatchLoss(functional.cross_entropy(logits, batch.labels), logits)


def assert_same_weights(model: torch.nn.Module, expected: dict[str, Tensor]) -> None:
    found = model.state_dict()
    assert list(found) == list(expected)
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def metrics(folder: Path) -> list[dict[str, object]]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [{k: v for k, v in json.loads(line).items() if k != "seconds"} for line in lines]


ATTACK = AdversarialOptions(epsilon=0.1, attack_steps=2)
VARIANTS: dict[str, dict[str, Any]] = {
    "adamw": {},
    "sgd": {"optimizer": "sgd", "lr": 0.05, "schedule": "cosine"},
    "plain-sgd": {"optimizer": "sgd", "momentum": 0.0, "lr": 0.05},
    "batchnorm": {"model": "wrn-10-1", "augment": "flip-crop", "epochs": 2},
    "noisy-method": {"method": "noisy"},
    "cutmix": {"cutmix": 1.0, "method": "adversarial", "adversarial": ATTACK},
    "average": {"model": "wrn-10-1", "average": 0.5, "epochs": 2},
    "average-best-qat": {"average": 0.9, "keep": "best", "qat": QatOptions(start=0.4)},
    "bf16": {"precision": "bf16", "epochs": 2},
    "adversarial-best": {"method": "adversarial", "adversarial": ATTACK, "keep": "best"},
    "qat": {"qat": QatOptions(start=0.4), "keep": "best"},  # begins in the second epoch
    "qat-adversarial": {"method": "adversarial", "adversarial": ATTACK, "qat": QatOptions(), "epochs": 2},
    "atta": {"method": "adversarial", "adversarial": replace(ATTACK, attack="atta"), "epochs": 2},
    "trades": {"method": "adversarial", "adversarial": replace(ATTACK, trades=1.0), "epochs": 2},
}


@pytest.mark.parametrize(  # checkpoints know nothing of what is trained: both of the first, then one in turn
    ("variant", "checkpoint_seconds"),
    [(next(iter(VARIANTS)), 1e9), *zip(VARIANTS, itertools.cycle((0.0, 1e9)), strict=False)],
)
def test_a_stopped_run_ends_like_an_unbroken_one(
    variant: str, checkpoint_seconds: float, tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plug_in(monkeypatch, "noisy", method_of(noisy))
    config = tiny(**VARIANTS[variant])
    unbroken = train(config, tmp_path / "unbroken")
    folder = tmp_path / "broken"
    for step in (1, 4, 8, 11):  # in the first epoch twice, after the first epoch twice
        with pytest.raises(Stop):
            train(
                config,
                folder,
                resume=True,
                on_progress=stop_after(step),
                checkpoint_seconds=checkpoint_seconds,
            )
        torch.rand(step)  # the caller's randomness is nothing to the run
    resumed = train(config, folder, resume=True)
    assert_same_weights(resumed.model, unbroken.model.state_dict())
    assert_same_weights(load_run(folder), unbroken.model.state_dict())
    assert resumed.test_accuracy == unbroken.test_accuracy
    assert metrics(folder) == metrics(tmp_path / "unbroken")
    assert [record["epoch"] for record in metrics(folder)] == list(range(1, config.epochs + 1))


def test_a_stop_at_every_single_step_changes_nothing(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(epochs=2)
    unbroken = train(config, tmp_path / "unbroken")
    folder = tmp_path / "broken"
    for step in range(1, 13):
        with pytest.raises(Stop):
            train(config, folder, resume=True, on_progress=stop_after(step), checkpoint_seconds=0.0)
    assert not (folder / "model.safetensors").exists()
    resumed = train(config, folder, resume=True, on_progress=stop_after(12))  # only the end is left to do
    assert_same_weights(resumed.model, unbroken.model.state_dict())
    assert metrics(folder) == metrics(tmp_path / "unbroken")


CHILD = """
import json, sys, time, torch
from muquant.training import TrainingConfig, train

def on_progress(progress):
    if progress.step == 60:  # in the second epoch: the child must not get to its end before it is killed
        time.sleep(600)

torch.set_num_threads(1)
config = TrainingConfig.from_dict(json.loads(sys.argv[1]))
train(config, sys.argv[2], on_progress=on_progress, checkpoint_seconds=0.0)
"""


def test_a_process_that_was_killed_can_be_resumed(tmp_path: Path) -> None:
    config = TrainingConfig(data="digits", model="cnn4-small", epochs=2, batch_size=32, lr=5e-3, device="cpu")
    folder = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, "-c", CHILD, json.dumps(config.to_dict()), str(folder)])
    try:
        deadline = time.monotonic() + 60
        while not (folder / "metrics.jsonl").exists() or not (folder / "metrics.jsonl").read_text():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        os.kill(process.pid, signal.SIGKILL)  # wherever it is: in a step, in the middle of writing a file
        process.wait()
    assert not (folder / "model.safetensors").exists()
    resumed = train(config, folder, resume=True)
    unbroken = train(config, tmp_path / "unbroken")
    assert_same_weights(resumed.model, unbroken.model.state_dict())
    assert metrics(folder) == metrics(tmp_path / "unbroken")
    assert unbroken.kept.validation_accuracy is not None
    assert unbroken.kept.validation_accuracy > 0.8  # it does learn


def test_metrics_that_are_ahead_of_the_checkpoint_are_not_repeated(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(tiny(), tmp_path, on_progress=stop_after(7))
    line = (tmp_path / "metrics.jsonl").read_text()
    (tmp_path / "metrics.jsonl").write_text(line * 2 + line[:20])
    train(tiny(), tmp_path, resume=True)
    assert [record["epoch"] for record in metrics(tmp_path)] == [1, 2, 3]


def test_a_run_killed_just_before_its_last_metrics_gets_them(tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(tiny(), tmp_path, on_progress=stop_after(18))
    (tmp_path / "metrics.jsonl").unlink()
    train(tiny(), tmp_path, resume=True)
    assert [record["epoch"] for record in metrics(tmp_path)] == [1, 2, 3]


def test_resuming_a_finished_run_returns_it(tiny: Tiny, tmp_path: Path) -> None:
    first = train(tiny(), tmp_path)
    before = {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    again = train(tiny(), tmp_path, resume=True, on_progress=stop_after(1))
    assert {path.name: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    assert_same_weights(again.model, first.model.state_dict())
    assert (again.test_accuracy, again.history) == (first.test_accuracy, first.history)


@pytest.mark.parametrize("finished", [False, True])
def test_a_changed_configuration_is_refused_by_name(finished: bool, tiny: Tiny, tmp_path: Path) -> None:
    if finished:
        train(tiny(), tmp_path)
    else:
        with pytest.raises(Stop):
            train(tiny(), tmp_path, on_progress=stop_after(7))
    with pytest.raises(InputError) as caught:
        train(tiny(lr=0.5, epochs=9), tmp_path, resume=True)
    message = str(caught.value)
    assert "epochs was 3 and is now 9, lr was 0.002 and is now 0.5" in message
    assert "batch_size" not in message


@pytest.mark.parametrize("finished", [False, True])
def test_a_run_from_before_there_was_an_option_is_resumed(finished: bool, tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(method="adversarial", adversarial=AdversarialOptions(epsilon=0.1, attack_steps=1))
    expected = train(config, tmp_path / "whole").model.state_dict()
    run = tmp_path / "run"
    if finished:
        train(config, run)
    else:
        with pytest.raises(Stop):
            train(config, run, on_progress=stop_after(7))

    def without(document: dict[str, Any]) -> dict[str, Any]:
        del document["config"]["cutmix"], document["config"]["adversarial"]["awp"]
        return document

    path = run / "config.json"
    path.write_text(json.dumps(without(json.loads(path.read_text()))))
    if not finished:
        checkpoint = run / "checkpoint.safetensors"
        file = read_tensors(checkpoint, CHECKPOINT_SCHEMA)
        write_tensors(checkpoint, CHECKPOINT_SCHEMA, file.tensors, without(dict(file.manifest)))
    assert_same_weights(train(config, run, resume=True).model, expected)


def test_changed_data_is_refused(tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Stop):
        train(tiny(), tmp_path, on_progress=stop_after(7))
    genuine = DATASETS["tiny"].load

    def changed(request: DatasetRequest) -> Dataset:
        dataset = genuine(request)
        return dataset.subset(torch.arange(len(dataset) - (request.split == "train")))

    monkeypatch.setitem(DATASETS, "tiny", DatasetEntry(changed))
    with pytest.raises(InputError, match=r"data of the run in .* changed: train was"):
        train(tiny(), tmp_path, resume=True)


def test_a_checkpoint_of_another_run_is_refused(tiny: Tiny, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2)):
        with pytest.raises(Stop):
            train(tiny(seed=seed), tmp_path / name, on_progress=stop_after(7))
    (tmp_path / "a" / "checkpoint.safetensors").replace(tmp_path / "b" / "checkpoint.safetensors")
    with pytest.raises(InputError, match=r"checkpoint .* changed: seed was 1 and is now 2"):
        train(tiny(seed=2), tmp_path / "b", resume=True)


@pytest.mark.parametrize("keep", [0, 7, 100, -1])
def test_a_truncated_checkpoint_is_refused(keep: int, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(tiny(), tmp_path, on_progress=stop_after(7))
    path = tmp_path / "checkpoint.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(InputError, match=r"checkpoint\.safetensors is not a whole muquant file"):
        train(tiny(), tmp_path, resume=True)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_checkpoint_that_is_not_finite_is_refused(bad: float, tiny: Tiny, tmp_path: Path) -> None:
    with pytest.raises(Stop):
        train(tiny(), tmp_path, on_progress=stop_after(7))
    path = tmp_path / "checkpoint.safetensors"
    file = read_tensors(path, CHECKPOINT_SCHEMA)
    file.tensors["model.fc1.weight"][1, 2] = bad
    write_tensors(path, CHECKPOINT_SCHEMA, file.tensors, {**file.manifest})
    with pytest.raises(InputError, match=r"checkpoint\.safetensors: model\.fc1\.weight is infinite or NaN"):
        train(tiny(), tmp_path, resume=True)
