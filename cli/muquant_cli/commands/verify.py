"""`muquant verify`."""

import sys
from pathlib import Path

import click

from muquant.base.errors import InputError
from muquant.compression.calibration import Samples, read_samples
from muquant.data import DATASETS, load_dataset
from muquant.models.calls import Example, Inputs, random_inputs
from muquant_cli.card import check_card, of_verification, write_card
from muquant_cli.options.calibration import ARRAYS, read_calibration
from muquant_cli.options.common import card_option, module_option, root_option
from muquant_cli.output import FAILED, Output, command
from muquant_cli.sources import Source
from muquant_cli.sources.artifacts import open_artifact
from muquant_cli.steps.graphs import GRAPHS
from muquant_cli.steps.verification import run_verify, run_verify_onnx, verify_document
from muquant_onnx.verification.runners import RUNTIMES
from muquant_onnx.verification.runtimes import ALL

_RANDOM_INPUTS, _RANDOM_VALUES = 256, 1 << 22
"""Inputs to draw, and how many numbers they may hold together: large images are slow."""


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--data",
    metavar="DATA|FILE|FOLDER",
    help="Data set whose test images are compared; beside an ONNX file also arrays, as --calibration of "
    "`compress` takes them. Inputs that are made up where none is named.",
)
@click.option("--limit", type=click.IntRange(min=1), help="Compare only so many inputs.")
@click.option(
    "--runtime",
    "runtimes",
    type=click.Choice([*RUNTIMES, ALL]),
    multiple=True,
    default=("onnxruntime",),
    help="What runs FILE, each in a process of its own; several times for several. all: those that are "
    "installed; it says what to install for the others.",
)
@module_option
@root_option
@card_option
@command
def verify(
    output: Output,
    model: Path,
    file: Path,
    data: str | None,
    limit: int | None,
    runtimes: tuple[str, ...],
    module: str | None,
    root: Path | None,
    card: bool,
) -> None:
    """Prove that FILE, an ONNX file, computes what MODEL, the .mq file behind it, computes.

    MODEL may be the float .onnx or .pt2 file that FILE was made from, too: FILE has to answer what its
    codes stand for, and it says how near that is to the float file's answers.

    Exit status 1 if it does not, or if a runtime cannot run it.
    """
    check_card(file, card)
    if model.suffix in GRAPHS:
        if module is not None:
            raise InputError(f"--module {module}: {model} brings its own graph; leave the option out")
        samples = None if data is None else _samples(data, limit, root)
        with GRAPHS[model.suffix](model, file) as source:
            report = run_verify_onnx(output, source, file, samples, runtimes)
    else:
        compressed, known = open_artifact(model, module)
        if data is None:
            inputs, what = _inputs_like(known, limit), "inputs like its example"
        else:
            images, what = load_dataset(data, "test", root=root).inputs()[:limit], data
            inputs = images if known.preprocess is None else known.preprocess(images)
        report = run_verify(output, compressed, file, inputs, what, runtimes)
    document = verify_document(report)
    if card:
        document |= write_card(output, file, {"verify": of_verification(report, file, model)})
    output.result(document)
    if not report.passed:
        sys.exit(FAILED)


def _samples(data: str, limit: int | None, root: Path | None) -> Samples:
    """The test images of a data set, or the arrays of a file or folder."""
    if Path(data).suffix in ARRAYS or (Path(data).is_dir() and data not in DATASETS):
        return read_calibration(data, limit or _RANDOM_INPUTS)
    return read_samples(load_dataset(data, "test", root=root).inputs()[:limit])


def _inputs_like(source: Source, limit: int | None) -> Example:
    example = source.require_example()
    values = sum(tensor[:1].numel() for tensor in Inputs.of(example).tensors)
    return random_inputs(example, limit or max(1, min(_RANDOM_INPUTS, _RANDOM_VALUES // max(values, 1))))
