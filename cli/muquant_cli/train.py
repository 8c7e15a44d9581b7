"""`muquant train`."""

from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import click

from muquant import training
from muquant.data import dataset_names
from muquant.models import model_names
from muquant.training import (
    AUGMENTATIONS,
    METHODS,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    Progress,
    TrainingConfig,
)
from muquant_cli.options import root_option
from muquant_cli.output import Output, command

_DEFAULTS = {field.name: field.default for field in fields(TrainingConfig)}
_HELP = {
    "data": f"Data set: {', '.join(dataset_names())}.",
    "model": f"Model: {', '.join(model_names())}.",
    "method": "What the loss is.",
    "epochs": "Passes over the training data.",
    "batch_size": "Images in a step.",
    "optimizer": "Rule of the steps.",
    "lr": "Peak learning rate.",
    "weight_decay": "Weight decay.",
    "momentum": "Momentum of sgd.",
    "schedule": "How the learning rate changes.",
    "warmup": "Fraction of the steps in which the rate rises.",
    "label_smoothing": "Label smoothing, 0 to 1.",
    "augment": "Random changes of the images.",
    "precision": "Arithmetic; bf16 is faster only on processors that have it.",
    "seed": "Seed of everything random.",
    "validation": "Fraction of the training data held out.",
    "device": "auto, cpu or cuda.",
}
_CHOICES: dict[str, Iterable[str]] = {
    "method": METHODS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "augment": AUGMENTATIONS,
    "precision": PRECISIONS,
}


def _config_options(function: Any) -> Any:
    """Add one option for each field of `TrainingConfig`, with its default."""
    for name, default in reversed(_DEFAULTS.items()):
        kind = click.Choice(list(_CHOICES[name])) if name in _CHOICES else type(default)
        text = _HELP.get(name, f"{name.replace('_', ' ').capitalize()}.")
        function = click.option(f"--{name.replace('_', '-')}", name, type=kind, default=default, help=text)(
            function
        )
    return function


@click.command()
@_config_options
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Run folder to write.")
@click.option(
    "--resume", is_flag=True, help="Go on with the run in the folder; bit for bit as if never interrupted."
)
@click.option("--download", is_flag=True, help="Fetch the data set where it is missing.")
@root_option
@command
def train(output: Output, out: Path, resume: bool, download: bool, root: Path | None, **options: Any) -> None:
    """Train a model and keep it in a run folder."""
    config = TrainingConfig(**options)
    result = run_training(output, config, out, resume=resume, download=download, root=root)
    output.result(
        {
            "folder": str(result.folder),
            "config": asdict(config),
            "test_accuracy": result.test_accuracy,
            "validation_accuracy": result.validation_accuracy,
            "history": [asdict(epoch) for epoch in result.history],
        }
    )


def run_training(
    output: Output, config: TrainingConfig, out: Path, **options: Any
) -> training.TrainingResult:
    """Train with a progress bar, and say how it went."""
    with output.progress(f"Training {config.model} on {config.data}") as update:

        def show(progress: Progress) -> None:
            note = (
                f"epoch {progress.epoch}/{progress.epochs}  loss {progress.loss:.3f}  rate {progress.lr:.1e}"
            )
            if progress.validation_accuracy is not None:
                note += f"  validation {progress.validation_accuracy:.2%}"
            update(progress.step, progress.steps, note)

        result = training.train(config, out, on_progress=show, **options)
    output.say(
        f"Trained {config.model} on {config.data}: {result.test_accuracy:.2%} on the test set; kept in {out}"
    )
    return result
