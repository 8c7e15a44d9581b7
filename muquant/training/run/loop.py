"""`train`: the one training loop, for every method."""

import math
import os
import platform
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from muquant.base.processes import join_processes
from muquant.base.seeds import derive_seed, own_randomness
from muquant.models import Classifier, build_model
from muquant.models.evaluation import evaluate
from muquant.models.fingerprint import fingerprint
from muquant.training.methods import METHODS
from muquant.training.options.config import TrainingConfig
from muquant.training.progress import EpochMetrics, OnNote, OnTrainingProgress
from muquant.training.run.best import BestWeights
from muquant.training.run.data import load_run_data
from muquant.training.run.folder import FinishedRun, RunFolder, load_run, read_run
from muquant.training.run.quantized import decoded_once
from muquant.training.run.session import TrainingSession
from muquant.training.run.start import start_from
from muquant.training.run.step import Stepper
from muquant.training.run.teacher import ready_teacher


def train(
    config: TrainingConfig,
    out: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    download: bool = False,
    init: str | os.PathLike[str] | None = None,
    teacher: nn.Module | None = None,
    resume: bool = False,
    on_progress: OnTrainingProgress | None = None,
    on_note: OnNote | None = None,
    checkpoint_seconds: float = 60.0,
    max_seconds: float = math.inf,
) -> "TrainingResult":
    """Train a model and leave everything about the run in a folder.

    The folder gets `config.json`, `metrics.jsonl` (a line an epoch), `checkpoint.safetensors` (after
    every epoch and every `checkpoint_seconds`) and last `model.safetensors`, each written whole or not at
    all, and a lock that keeps other processes out. A run that was killed, whenever that was, and is resumed,
    ends with the weights of the uninterrupted run: bit for bit on a CPU, with the same software and number of
    threads.

    Where torchrun has started several processes, each calls this and does its part of every batch; the first
    one writes the files. A method may add its own, such as `feedback/`.

    Args:
        config: what to train, and how.
        out: the run folder; it is made where it is missing.
        root: the folder of the data sets, see `load_dataset`.
        download: fetch missing data.
        init: folder of a finished run in float, whose weights this one begins with; None for random ones. A
            run that is resumed may leave it out.
        teacher: a network that takes the same images and returns as many logits, whose answers adversarial
            training learns in place of the labels; it is left as it is. A run that is resumed needs it, too.
        resume: go on with the run in `out`, or begin it where none has begun. A finished run is returned.
        on_progress: called after every step; what it raises ends the run, which can be resumed then.
        on_note: called with what a method does between two epochs, while that takes long; likewise.
        checkpoint_seconds: the longest time between two checkpoints, give or take a step.
        max_seconds: of training in this call, of which at least one step is done.

    Raises:
        OutOfTime: `max_seconds` have passed; the run can be resumed.
        InputError: data, model or device cannot be had; `out` holds a run and `resume` is off, or it holds a
            run of another configuration or other data, or one that another process is training; or loss or
            weights stopped being finite, and then the last good checkpoint stays; or the method takes no
            teacher, or the teacher does not answer images of the data with a logit for each class.
    """
    folder, processes = RunFolder(Path(out)), join_processes(config.device)
    if not resume and not processes.rank:
        folder.check_free()
    with processes.in_turn():
        data = load_run_data(config, root, download)
    parts = data.train
    with own_randomness(processes.device):
        torch.manual_seed(derive_seed(config.seed, "weights"))
        model = build_model(config.model, parts.input_shape, len(parts.classes), parts.mean, parts.std)
        if init is None:
            METHODS[config.method](config).initialize(model)
        origin = folder.origin() if init is None else start_from(init, model, config, data.identity)
        identity: dict[str, Any] = {"config": config.to_dict(), "data": data.identity, "init": origin}
        if teacher is not None:
            teacher = ready_teacher(teacher, config, parts, processes.device)
            identity["teacher"] = fingerprint(teacher)
        model.to(processes.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        stepper = Stepper(model, config, parts, processes, teacher)
        with processes.in_turn():  # what cannot be used has been found by now
            folder.begin({**identity, "versions": _versions()})
        if folder.model.exists():
            return _finished(folder)
        average = stepper.average()
        best = BestWeights(model, stepper.first_judged_epoch) if config.keep == "best" else None
        say = on_note or (lambda note: None)
        session = TrainingSession(
            folder, stepper, average, best, data.validation, identity, checkpoint_seconds, max_seconds, say
        )
        with nullcontext() if processes.rank else folder.claim():
            history = session.to_end(session.start(), on_progress)
            kept = config.epochs
            if best is not None:
                kept = best.restore(history)
            elif average is not None:
                average.restore(stepper.steps - 1)
            stepper.finish(folder.path, say)
    model.eval().to(memory_format=torch.contiguous_format)
    with torch.no_grad(), decoded_once(model):
        accuracy = processes.share(math.nan if processes.rank else evaluate(model, data.test))
    finished = FinishedRun(
        model.architecture, config, parts.classes, data.identity, origin, accuracy, history, kept
    )
    model.cpu()
    with processes.in_turn():
        if not processes.rank:
            folder.finish(model, finished)
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


def _finished(folder: RunFolder) -> TrainingResult:
    run = read_run(folder.path)
    return TrainingResult(folder.path, load_run(folder.path), run.test_accuracy, run.history, run.kept_epoch)


def _versions() -> dict[str, str]:
    return {"python": platform.python_version(), "torch": str(torch.__version__)}
