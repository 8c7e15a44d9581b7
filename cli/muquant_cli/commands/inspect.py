"""`muquant inspect`."""

from pathlib import Path
from typing import Any

import click

from muquant.base.errors import InputError
from muquant.base.files import check_writable
from muquant_cli.options.common import root_option
from muquant_cli.output import Output, command
from muquant_onnx import running_operators
from muquant_onnx.serving.read import read_consistent


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--plot", type=click.Path(path_type=Path), help="Picture of the levels to draw, for a .mq file."
)
@click.option(
    "--amplification",
    type=click.Path(path_type=Path),
    help="Picture to draw of how errors grow from layer to layer, for a .mq file; needs --run and --data.",
)
@click.option(
    "--run", type=click.Path(path_type=Path), help="Run folder with the float weights, for the pictures."
)
@click.option("--data", help="Data set whose test images are perturbed.")
@click.option("--attack", default="pgd", help="How: an attack on the float model, or uniform-noise.")
@click.option("--epsilon", metavar="NUMBER", help='How far, such as 0.3 or "8/255".  [default: by data set]')
@click.option("--limit", type=click.IntRange(min=1), default=200, help="The first so many test images.")
@root_option
@command
def inspect(
    output: Output,
    file: Path,
    plot: Path | None,
    amplification: Path | None,
    run: Path | None,
    data: str | None,
    **options: Any,
) -> None:
    """Show what is in FILE, layer by layer: a .mq or .onnx file, or a run folder."""
    for name, picture in (("--plot", plot), ("--amplification", amplification)):
        if picture is not None and file.suffix != ".mq":
            raise InputError(f"{name} draws .mq files, found {file}; name one")
        if picture is not None:
            check_writable(picture)
    if (data is None) != (amplification is None) or (amplification is not None and run is None):
        raise InputError("--amplification PICTURE goes with --run RUN, which was compressed, and --data DATA")
    if file.is_dir():
        from muquant_cli.steps.inspection import inspect_run  # late: an ONNX file is shown without torch

        inspect_run(output, file)
    elif file.suffix == ".onnx":
        _inspect_onnx(output, file)
    elif file.suffix == ".mq":
        from muquant_cli.steps.inspection import inspect_artifact

        inspect_artifact(output, file, plot, amplification, run, data=data, **options)
    else:
        raise InputError(f"cannot tell what {file} is; expected a .mq or .onnx file, or a run folder")


def _inspect_onnx(output: Output, file: Path) -> None:
    metadata = read_consistent(file).metadata
    rows = [
        (
            name,
            "x".join(map(str, entry["shape"])),
            entry["bits"],
            f"{entry['mu']:.3g}",
            entry["granularity"],
            entry["domain"],
            ", ".join(entry["served"]),
        )
        for name, entry in metadata["weights"].items()
    ]
    title = f"{file}: {metadata['producer']}, policy {metadata['policy']}, {file.stat().st_size:,} bytes"
    output.table(title, ("weight", "shape", "bits", "mu", "granularity", "domain", "served as"), rows)
    operators = running_operators(file)
    output.say("onnxruntime runs: " + ", ".join(f"{count} {name}" for name, count in operators.items()))
    output.result({"path": str(file), "nbytes": file.stat().st_size, **metadata, "operators": operators})
