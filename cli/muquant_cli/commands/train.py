"""`muquant train`."""

import math
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from muquant import training
from muquant.base.devices import computes_bf16, find_device
from muquant.base.errors import InputError
from muquant.training import EpochMetrics, OutOfTime, TrainingConfig, TrainingProgress
from muquant_cli.options.common import root_option
from muquant_cli.options.training import config_options, read_config
from muquant_cli.output import BAD_INPUT, Output, command


@click.command()
@config_options
@click.option("--init", type=click.Path(path_type=Path), help="Run folder whose weights to begin with.")
@click.option("-o", "--out", required=True, type=click.Path(path_type=Path), help="Run folder to write.")
@click.option(
    "--resume", is_flag=True, help="Go on with the run in the folder; bit for bit as if never interrupted."
)
@click.option(
    "--max-seconds", type=float, default=math.inf, show_default=False, help="Stop in time, to be resumed."
)
@click.option("--download", is_flag=True, help="Fetch the data set where it is missing.")
@root_option
@command
def train(
    output: Output,
    out: Path,
    init: Path | None,
    resume: bool,
    max_seconds: float,
    download: bool,
    root: Path | None,
    qat: bool,
    **options: Any,
) -> None:
    """Train a model and keep it in a run folder. Started by torchrun, several processes share each batch."""
    first = os.environ.get("RANK", "0") == "0"
    output.quiet(not first)
    try:
        config = read_config(qat, options)
        result = run_training(
            output,
            config,
            out,
            init=init,
            resume=resume,
            max_seconds=max_seconds,
            download=download,
            root=root,
        )
    except OutOfTime as stop:
        output.say(f"{stop}: the run in {out} is not finished; go on with the same command and --resume")
        if first:
            output.result({"folder": str(out), "config": asdict(config), "finished": False})
        return
    except InputError:
        if first:
            raise
        sys.exit(BAD_INPUT)  # the first process has said it
    if not first:
        return
    output.result(
        {
            "folder": str(result.folder),
            "config": asdict(config),
            "finished": True,
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
    if config.precision == "bf16" and not computes_bf16(find_device(config.device)):
        output.say(
            "This processor has no instructions for bf16: a step may take over ten times as long as with "
            "--precision float32."
        )
    with output.progress(f"Training {config.model} on {config.data}") as update:
        place: tuple[int, int | None] = (0, None)

        def show(progress: TrainingProgress) -> None:
            nonlocal place
            note = (
                f"epoch {progress.epoch}/{progress.epochs}  loss {progress.loss:.3f}  rate {progress.lr:.1e}"
            )
            if progress.last_epoch is not None:
                note += _held_out(progress.last_epoch)
            place = progress.step, progress.steps
            update(*place, note)

        result = training.train(
            config, out, on_progress=show, on_note=lambda note: update(*place, note), **options
        )
    output.say(
        f"Trained {config.model} on {config.data}: {result.test_accuracy:.2%} on the test set; "
        f"epoch {result.kept_epoch} kept in {out}{_held_out(result.kept)}"
    )
    return result


def _held_out(record: EpochMetrics) -> str:
    """What was measured on held-out images, for people."""
    values = {"validation": record.validation_accuracy, "robust": record.robust_accuracy}
    return "".join(f"  {name} {value:.2%}" for name, value in values.items() if value is not None)
