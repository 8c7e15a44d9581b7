"""`muquant train`."""

import math
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from muquant.base.errors import InputError
from muquant.compression.left import left_float
from muquant.training import OutOfTime
from muquant_cli.options.common import root_option
from muquant_cli.options.training import config_options, read_config
from muquant_cli.output import Output, command
from muquant_cli.sources import read_source, source_forms
from muquant_cli.steps.training import run_training
from muquant_cli.streams import BAD_INPUT


@click.command()
@config_options
@click.option("--init", type=click.Path(path_type=Path), help="Run folder whose weights to begin with.")
@click.option(
    "--teacher",
    metavar="MODEL",
    help=f"A robust network whose answers adversarial training learns in place of labels: {source_forms()}.",
)
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
    teacher: str | None,
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
            teacher=None if teacher is None else read_source(teacher).on_images,
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
    document = {
        "folder": str(result.folder),
        "config": asdict(config),
        "finished": True,
        "test_accuracy": result.test_accuracy,
        "validation_accuracy": result.kept.validation_accuracy,
        "robust_accuracy": result.kept.robust_accuracy,
        "kept_epoch": result.kept_epoch,
        "history": [asdict(epoch) for epoch in result.history],
    }
    if config.qat is not None:
        document["left_alone"] = [asdict(each) for each in left_float(result.model)]
    output.result(document)
