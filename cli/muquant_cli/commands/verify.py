"""`muquant verify`."""

import sys
from pathlib import Path

import click

from muquant.data import load_dataset
from muquant.models.calls import Example, Inputs, random_inputs
from muquant_cli.options.common import module_option, root_option
from muquant_cli.output import FAILED, Output, command
from muquant_cli.sources import Source
from muquant_cli.sources.artifacts import open_artifact
from muquant_cli.steps.verification import run_verify, verify_document

_RANDOM_INPUTS, _RANDOM_VALUES = 256, 1 << 22
"""Inputs to draw, and how many numbers they may hold together: large images are slow."""


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--data", help="Data set whose test images are compared; random inputs where none is named.")
@click.option("--limit", type=click.IntRange(min=1), help="Compare only so many inputs.")
@module_option
@root_option
@command
def verify(
    output: Output,
    model: Path,
    file: Path,
    data: str | None,
    limit: int | None,
    module: str | None,
    root: Path | None,
) -> None:
    """Prove that FILE, an ONNX file, computes what MODEL, the .mq file behind it, computes.

    Exit status 1 if it does not.
    """
    compressed, source = open_artifact(model, module)
    if data is None:
        inputs, what = _inputs_like(source, limit), "inputs like its example"
    else:
        images, what = load_dataset(data, "test", root=root).inputs()[:limit], data
        inputs = images if source.preprocess is None else source.preprocess(images)
    report = run_verify(output, compressed, file, inputs, what)
    output.result(verify_document(report))
    if not report.passed:
        sys.exit(FAILED)


def _inputs_like(source: Source, limit: int | None) -> Example:
    example = source.require_example()
    values = sum(tensor[:1].numel() for tensor in Inputs.of(example).tensors)
    return random_inputs(example, limit or max(1, min(_RANDOM_INPUTS, _RANDOM_VALUES // max(values, 1))))
