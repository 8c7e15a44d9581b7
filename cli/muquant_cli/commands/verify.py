"""`muquant verify`."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

import muquant
from muquant.base.text import byte_size
from muquant.data import load_dataset
from muquant.models.calls import Example, Inputs, random_inputs
from muquant_cli.options.common import module_option, root_option
from muquant_cli.output import FAILED, Output, command
from muquant_cli.sources import Source
from muquant_cli.sources.artifacts import open_artifact
from muquant_onnx import VerifyReport, verify as verify_file
from muquant_onnx.verification.costs import BATCHES

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


def run_verify(
    output: Output, compressed: muquant.CompressedModel, file: Path, inputs: Example, what: str
) -> VerifyReport:
    """Verify, and say how it went."""
    with output.progress(f"Verifying {file.name}") as update:
        update(0, 1, f"on {len(Inputs.of(inputs).tensors[0])} inputs")
        report = verify_file(compressed, file, inputs)
    rows: list[tuple[object, ...]] = [
        (
            check.name,
            *("equal" if same else "DIFFERENT" for same in (check.numpy, check.folded, check.unfolded)),
        )
        for check in report.weights
    ]
    output.table("Weights, bit for bit", ("weight", "numpy", "onnxruntime, folded", "not folded"), rows)
    rows = [
        (
            check.setting if check.policy is None else f"policy {check.policy}",
            f"{check.difference:.1e}",
            "-" if check.agreement is None else f"{check.agreement:.2%}",
            _verdict(check.passed),
            ", ".join(f"{count} {name}" for name, count in check.operators.items())
            if check.setting != "unoptimized" and check.policy != "packed"
            else "all",
        )
        for check in report.runtimes
    ]
    title = f"Outputs against PyTorch on {report.count} inputs ({what})"
    output.table(title, ("how", "difference", "same argmax", "", "operators that run"), rows)
    headers = ("loaded by", "file", "load", "peak", "settled", *(f"batch {count}" for count in BATCHES))
    rows = [
        (
            "onnxruntime" if name == "file" else name if name == "float model" else f"policy {name}",
            byte_size(cost.nbytes),
            _milliseconds(cost.seconds),
            byte_size(cost.peak),
            byte_size(cost.settled),
            *(_milliseconds(cost.latency.get(count)) for count in BATCHES),
        )
        for name, cost in report.costs.items()
    ]
    output.table("Cost: time, memory above an empty session's, time of a run", headers, rows)
    output.say(f"{_verdict(report.passed)}: {file}")
    return report


def verify_document(report: VerifyReport) -> dict[str, Any]:
    """Return the report as JSON values."""
    return {"passed": report.passed, **asdict(report)}


def _inputs_like(source: Source, limit: int | None) -> Example:
    example = source.require_example()
    values = sum(tensor[:1].numel() for tensor in Inputs.of(example).tensors)
    return random_inputs(example, limit or max(1, min(_RANDOM_INPUTS, _RANDOM_VALUES // max(values, 1))))


def _verdict(passed: bool) -> str:
    return "PASS" if passed else "FAIL"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.3g} ms"
