"""`train`: the one training loop, for every method."""

import os
import platform
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from muquant.data import Dataset
from muquant.errors import InputError
from muquant.models import Classifier, build_model
from muquant.tensor_files import read_tensors
from muquant.training.best import BestWeights, best_epoch
from muquant.training.config import TrainingConfig
from muquant.training.evaluation import evaluate
from muquant.training.progress import EpochMetrics, OnProgress, Progress
from muquant.training.run_data import load_run_data
from muquant.training.runs import FinishedRun, RunFolder, load_run, read_run, refuse_changes
from muquant.training.seeds import derive_seed, own_randomness
from muquant.training.state import (
    CHECKPOINT_SCHEMA,
    Position,
    create_state,
    live_tensors,
    read_position,
    save_checkpoint,
)
from muquant.training.step import Stepper


def train(
    config: TrainingConfig,
    out: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    resume: bool = False,
    on_progress: OnProgress | None = None,
    checkpoint_seconds: float = 60.0,
) -> "TrainingResult":
    """Train a model and leave everything about the run in a folder.

    The folder gets `config.json`, `metrics.jsonl` (a line an epoch), `checkpoint.safetensors` (after
    every epoch and every `checkpoint_seconds`) and last `model.safetensors`, each written whole or not at
    all. A run that was killed, whenever that was, and is resumed, ends with the weights of the
    uninterrupted run: bit for bit on a CPU, with the same software and number of threads.

    Args:
        config: what to train, and how.
        out: the run folder; it is made where it is missing.
        root: the folder of the data sets, see `load_dataset`.
        download: fetch missing data.
        resume: go on with the run in `out`, or begin it where none has begun. A finished run is returned.
        on_progress: called after every step; what it raises ends the run, which can be resumed then.
        checkpoint_seconds: the longest time between two checkpoints, give or take a step.

    Raises:
        InputError: data, model or device cannot be had; `out` holds a run and `resume` is off, or it holds a
            run of another configuration or other data; or loss or weights stopped being finite, and then the
            last good checkpoint stays.
    """
    device = config.torch_device()
    folder = RunFolder(Path(out))
    if not resume:
        folder.check_free()
    data = load_run_data(config, root, download)
    identity = {"config": config.to_dict(), "data": data.identity}
    with own_randomness(device):
        torch.manual_seed(derive_seed(config.seed, "weights"))
        parts = data.train
        model = build_model(config.model, parts.input_shape, len(parts.classes), parts.mean, parts.std)
        folder.begin({**identity, "versions": _versions()})
        if folder.model.exists():
            return _finished(folder)
        model.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        stepper = Stepper(model, config, data.train)
        best = BestWeights(model) if config.keep == "best" else None
        run = _Run(folder, stepper, best, data.validation, identity, checkpoint_seconds)
        history = run.to_end(run.start(), on_progress)
    kept = config.epochs
    if best is not None:
        kept = best_epoch(history)
        best.restore()
    model.eval().to(memory_format=torch.contiguous_format)
    accuracy = evaluate(model, data.test)
    finished = FinishedRun(model.architecture, config, parts.classes, data.identity, accuracy, history, kept)
    folder.finish(model.cpu(), finished)
    return TrainingResult(folder.path, model, accuracy, history, kept)


@dataclass(frozen=True, eq=False)
class TrainingResult:
    """A finished run.

    Attributes:
        folder: with the files of the run.
        model: on the CPU, in evaluation mode.
        test_accuracy: 0..1, on the test split, in float32.
        history: one entry an epoch.
        kept_epoch: 1..epochs, the one after which the weights were taken.
    """

    folder: Path
    model: Classifier
    test_accuracy: float
    history: tuple[EpochMetrics, ...]
    kept_epoch: int

    @property
    def kept(self) -> EpochMetrics:
        """What was measured after the epoch whose weights were kept."""
        return self.history[self.kept_epoch - 1]


@dataclass(frozen=True, eq=False)
class _Run:
    folder: RunFolder
    stepper: Stepper
    best: BestWeights | None
    validation: Dataset | None
    identity: dict[str, Any]
    checkpoint_seconds: float

    def start(self) -> Position:
        """Load the checkpoint over weights and optimizer where there is one, and say where the run stands."""
        path = self.folder.checkpoint
        if not path.exists():
            return Position()
        file = read_tensors(path, CHECKPOINT_SCHEMA)
        for key, given in self.identity.items():
            refuse_changes(f"{key} of the checkpoint {path}", file.manifest.get(key), given)
        position = read_position(file, self.stepper.steps_per_epoch)
        create_state(self.stepper.model, self.stepper.optimizer)
        file.copy_into(self.tensors())
        self.folder.write_metrics(position.history)  # the run may have been killed just before that
        return position

    def to_end(self, position: Position, on_progress: OnProgress | None) -> tuple[EpochMetrics, ...]:
        """Do all steps that are left."""
        began = saved = time.monotonic()
        first = position.step
        while position.step < self.stepper.steps:
            position = self.advance(position)
            epoch_ends = position.step % self.stepper.steps_per_epoch == 0
            if epoch_ends:
                position = self.close_epoch(position)
                if self.best is not None:
                    self.best.take(position.history)
            if epoch_ends or time.monotonic() - saved >= self.checkpoint_seconds:
                self.save(position)
                saved = time.monotonic()
            if on_progress is not None:
                pace = (time.monotonic() - began) / (position.step - first)
                on_progress(self.progress(position, pace))
        return position.history

    def advance(self, position: Position) -> Position:
        """Do one step."""
        began = time.monotonic()
        outcome = self.stepper.run(position.step)
        return replace(
            position,
            step=position.step + 1,
            loss=position.loss + outcome.loss,
            correct=position.correct + outcome.correct,
            seen=position.seen + outcome.seen,
            seconds=position.seconds + time.monotonic() - began,
        )

    def close_epoch(self, position: Position) -> Position:
        """Validate, and turn the epoch's sums into a line of the history."""
        stepper, held_out = self.stepper, self.validation
        more = stepper.method.validate(stepper.model, held_out) if held_out else {}
        record = EpochMetrics(
            epoch=len(position.history) + 1,
            train_loss=position.loss / stepper.steps_per_epoch,
            train_accuracy=position.correct / position.seen,
            validation_accuracy=evaluate(stepper.model, held_out) if held_out else None,
            lr=stepper.learning_rate(position.step - 1),
            seconds=round(position.seconds, 3),
            **more,
        )
        if fault := stepper.method.fault(record):
            raise InputError(stepper.stopped(position.step - 1, fault))
        return Position(step=position.step, history=(*position.history, record))

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that a checkpoint holds, by name."""
        live = live_tensors(self.stepper.model, self.stepper.optimizer)
        return live if self.best is None else {**live, **self.best.tensors}

    def save(self, position: Position) -> None:
        """Write the checkpoint, and the metrics that it knows of."""
        tensors = self.tensors()
        if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
            raise InputError(self.stepper.divergence(position.step - 1, "a weight became infinite or NaN"))
        save_checkpoint(self.folder.checkpoint, tensors, position, self.identity)
        self.folder.write_metrics(position.history)

    def progress(self, position: Position, pace: float) -> Progress:
        """What is reported after a step that took `pace` seconds on average."""
        per_epoch, steps = self.stepper.steps_per_epoch, self.stepper.steps
        done_here = position.step % per_epoch
        last = position.history[-1] if position.history else None
        return Progress(
            epoch=(position.step - 1) // per_epoch + 1,
            epochs=steps // per_epoch,
            step=position.step,
            steps=steps,
            loss=last.train_loss if last and not done_here else position.loss / done_here,
            lr=self.stepper.learning_rate(position.step - 1),
            last_epoch=last,
            seconds_left=pace * (steps - position.step),
        )


def _finished(folder: RunFolder) -> TrainingResult:
    run = read_run(folder.path)
    return TrainingResult(folder.path, load_run(folder.path), run.test_accuracy, run.history, run.kept_epoch)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": str(torch.__version__)}
