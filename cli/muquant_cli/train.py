"""`muquant train`."""

from collections.abc import Iterable
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import click

from muquant import training
from muquant.attacks.norms import parse_epsilon
from muquant.data import dataset_names
from muquant.errors import InputError
from muquant.models import model_names
from muquant.training import (
    AUGMENTATIONS,
    KEEP,
    METHODS,
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    AdversarialOptions,
    EpochMetrics,
    Progress,
    TrainingConfig,
)
from muquant_cli.options import root_option
from muquant_cli.output import Output, command

_GROUPS = {"adversarial": AdversarialOptions}
"""Field of `TrainingConfig` that is a group of options -> the class of the group."""

_WITHIN = "__"
"""Between group and field in the name of a parameter."""

_DEFAULTS = {field.name: field.default for field in fields(TrainingConfig) if field.name not in _GROUPS}
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
    "keep": "Keep the weights of the last epoch, or of the best on held-out images.",
    "epsilon": "Linf radius to defend, such as 0.3 or 8/255.  [default: the usual one of the data set]",
    "attack_steps": "Gradient steps of the attack; 1 is fast and less safe.",
    "attack_step_size": "Length of an attack step.  [default: 2.5 epsilon / steps, or 1.25 epsilon for 1]",
    "epsilon_warmup": "Fraction of the steps in which epsilon and the attack steps rise.",
    "trades": "Weight of the TRADES loss; 0: train on adversarial images alone.",
}
_CHOICES: dict[str, Iterable[str]] = {
    "method": METHODS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "augment": AUGMENTATIONS,
    "precision": PRECISIONS,
    "keep": KEEP,
}


class _Length(click.ParamType[float]):
    """A number, or a fraction such as 8/255."""

    name = "number"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Read it, or fail as click does."""
        try:
            return parse_epsilon(value)
        except InputError as error:
            self.fail(str(error), param, ctx)


def _config_options(function: Any) -> Any:
    """Add one option for each field of `TrainingConfig` and of its groups, with its default."""
    for group, kind in _GROUPS.items():
        for field in reversed(fields(kind)):
            known = field.default is not None
            function = click.option(
                f"--{field.name.replace('_', '-')}",
                f"{group}{_WITHIN}{field.name}",
                type=type(field.default) if known else _Length(),
                show_default=False,
                help=_HELP[field.name] + (f"  [default: {field.default}]" if known else ""),
            )(function)
    for name, default in reversed(_DEFAULTS.items()):
        values = click.Choice(list(_CHOICES[name])) if name in _CHOICES else type(default)
        function = click.option(
            f"--{name.replace('_', '-')}", name, type=values, default=default, help=_HELP[name]
        )(function)
    return function


def _config(options: dict[str, Any]) -> TrainingConfig:
    """Read what the options of `_config_options` were given; a group of which none was given is None."""
    plain: dict[str, Any] = {}
    groups: dict[str, dict[str, Any]] = {}
    for name, value in options.items():
        group, _, field = name.partition(_WITHIN)
        if not field:
            plain[name] = value
        elif value is not None:
            groups.setdefault(group, {})[field] = value
    return TrainingConfig(**plain | {name: _GROUPS[name](**values) for name, values in groups.items()})


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
    config = _config(options)
    result = run_training(output, config, out, resume=resume, download=download, root=root)
    output.result(
        {
            "folder": str(result.folder),
            "config": asdict(config),
            "test_accuracy": result.test_accuracy,
            "validation_accuracy": result.kept.validation_accuracy,
            "robust_accuracy": result.kept.robust_accuracy,
            "kept_epoch": result.kept_epoch,
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
            if progress.last_epoch is not None:
                note += _held_out(progress.last_epoch)
            update(progress.step, progress.steps, note)

        result = training.train(config, out, on_progress=show, **options)
    output.say(
        f"Trained {config.model} on {config.data}: {result.test_accuracy:.2%} on the test set; "
        f"epoch {result.kept_epoch} kept in {out}{_held_out(result.kept)}"
    )
    return result


def _held_out(record: EpochMetrics) -> str:
    """What was measured on held-out images, for people."""
    values = {"validation": record.validation_accuracy, "robust": record.robust_accuracy}
    return "".join(f"  {name} {value:.2%}" for name, value in values.items() if value is not None)
