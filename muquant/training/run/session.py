"""`TrainingSession`: the steps of a run from where it stands to its end, with validation and checkpoints."""

import math
import time
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from muquant.base.errors import InputError
from muquant.base.tensor_files import read_tensors
from muquant.data import Dataset
from muquant.models.evaluation import evaluate
from muquant.training.progress import EpochMetrics, OnNote, OnTrainingProgress, TrainingProgress
from muquant.training.run.average import AveragedWeights
from muquant.training.run.best import BestWeights
from muquant.training.run.folder import RunFolder, refuse_changes
from muquant.training.run.quantized import decoded_once
from muquant.training.run.state import CHECKPOINT_SCHEMA, Position, read_position, save_checkpoint
from muquant.training.run.step import Stepper


class OutOfTime(Exception):  # noqa: N818  # nothing went wrong
    """The run has used its time; its checkpoint is written, and it can be resumed."""


@dataclass(frozen=True, eq=False)
class TrainingSession:
    """What one process does of a run.

    Attributes:
        folder: of the run.
        stepper: does its steps.
        average: the mean of the weights so far, where that is to be kept.
        best: the weights of the best epoch, where they are to be kept.
        held_out: what epochs are validated on; None where nothing is held out.
        identity: JSON values that say whose checkpoint it is.
        checkpoint_seconds: the longest time between two checkpoints, give or take a step.
        max_seconds: of the session, of which at least one step is done; infinity for all steps.
        on_note: told what a method does between two epochs.
    """

    folder: RunFolder
    stepper: Stepper
    average: AveragedWeights | None
    best: BestWeights | None
    held_out: Dataset | None
    identity: dict[str, Any]
    checkpoint_seconds: float
    max_seconds: float
    on_note: OnNote

    def start(self) -> Position:
        """Load the checkpoint over weights and optimizer where there is one, and say where the run stands."""
        path = self.folder.checkpoint
        if not path.exists():
            return Position()
        file = read_tensors(path, CHECKPOINT_SCHEMA)
        for key, given in self.identity.items():
            refuse_changes(key, f"the checkpoint {path}", file.manifest.get(key), given)
        position = read_position(file, self._per_epoch)
        self.stepper.data.restore(file.tensors)
        file.copy_into(self.tensors())
        if name := next((name for name, tensor in self.tensors().items() if not _is_finite(tensor)), None):
            raise InputError(f"{path}: {name} is infinite or NaN; delete the file to start the run again")
        if not self.stepper.processes.rank:
            self.folder.write_metrics(position.history)  # the run may have been killed just before that
        return position

    def to_end(self, position: Position, on_progress: OnTrainingProgress | None) -> tuple[EpochMetrics, ...]:
        """Do all steps that are left.

        Raises:
            OutOfTime: `max_seconds` were too few for them.
        """
        began = saved = time.monotonic()
        first, longest = position.step, 0.0
        while position.step < self.stepper.steps:
            now = time.monotonic()
            if position.step > first and self._out_of_time(now - began + longest):
                self.save(position)
                raise OutOfTime(
                    f"stopped after step {position.step} of {self.stepper.steps} (epoch "
                    f"{(position.step - 1) // self._per_epoch + 1})"
                )
            position = self.advance(position)
            epoch_ends = position.step % self._per_epoch == 0
            if epoch_ends:
                position = self.close_epoch(position)
            if epoch_ends or time.monotonic() - saved >= self.checkpoint_seconds:
                self.save(position)
                saved = time.monotonic()
            longest = max(longest, time.monotonic() - now)
            if on_progress is not None:
                pace = (time.monotonic() - began) / (position.step - first)
                on_progress(self.progress(position, pace))
        return position.history

    def advance(self, position: Position) -> Position:
        """Do one step; the first one of an epoch begins it."""
        began = time.monotonic()
        epoch, place = divmod(position.step, self._per_epoch)
        if not place:
            self.stepper.begin_epoch(epoch, self.folder.path, self.on_note)
        outcome = self.stepper.run(position.step)
        if self.average is not None:
            self.average.take(position.step)
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
        if self.average is None or self.held_out is None:
            return self._judge(position)
        with self.average.in_place(position.step - 1):
            return self._judge(position)

    def _judge(self, position: Position) -> Position:
        stepper = self.stepper
        record = EpochMetrics(
            epoch=len(position.history) + 1,
            train_loss=position.loss / self._per_epoch,
            train_accuracy=position.correct / position.seen,
            lr=stepper.learning_rate(position.step - 1),
            seconds=round(position.seconds, 3),
            **stepper.processes.share({} if stepper.processes.rank else self.validate()),
        )
        if fault := stepper.method.fault(record):
            raise InputError(stepper.stopped(position.step - 1, fault))
        history = (*position.history, record)
        if self.best is not None:
            self.best.take(history)
        return Position(step=position.step, history=history)

    def validate(self) -> dict[str, float | None]:
        """What is measured on held-out images, as fields of `EpochMetrics`."""
        if self.held_out is None:
            return {"validation_accuracy": None}
        model, method = self.stepper.model, self.stepper.method
        with torch.no_grad(), decoded_once(model):
            return {
                "validation_accuracy": evaluate(model, self.held_out),
                **method.validate(model, self.held_out),
            }

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that a checkpoint holds, by name."""
        tensors = self.stepper.tensors()
        for copy in (self.average, self.best):
            tensors |= copy.tensors if copy is not None else {}
        return tensors

    def save(self, position: Position) -> None:
        """Write the checkpoint, and the metrics that it knows of."""
        tensors = self.tensors()
        if not all(map(_is_finite, tensors.values())):
            raise InputError(self.stepper.divergence(position.step - 1, "a weight became infinite or NaN"))
        if not self.stepper.processes.rank:
            save_checkpoint(self.folder.checkpoint, tensors, position, self.identity)
            self.folder.write_metrics(position.history)

    def progress(self, position: Position, pace: float) -> TrainingProgress:
        """What is reported after a step that took `pace` seconds on average."""
        per_epoch, steps = self._per_epoch, self.stepper.steps
        done_here = position.step % per_epoch
        last = position.history[-1] if position.history else None
        return TrainingProgress(
            epoch=(position.step - 1) // per_epoch + 1,
            epochs=steps // per_epoch,
            step=position.step,
            steps=steps,
            loss=last.train_loss if last and not done_here else position.loss / done_here,
            lr=self.stepper.learning_rate(position.step - 1),
            last_epoch=last,
            seconds_left=pace * (steps - position.step),
        )

    def _out_of_time(self, seconds: float) -> bool:
        """Whether the first process' clock ends the session."""
        if self.max_seconds == math.inf:
            return False
        return self.stepper.processes.share(seconds > self.max_seconds)

    @property
    def _per_epoch(self) -> int:
        return self.stepper.data.steps_per_epoch


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())
