"""`muquant export`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch

import muquant
from muquant_cli.options import input_shape, out_option, policy_option
from muquant_cli.output import Output, command
from muquant_onnx import ExportReport, export_onnx


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@out_option("model.onnx")
@policy_option
@command
def export(output: Output, model: Path, out: Path, policy: str) -> None:
    """Write MODEL, a .mq file, as an ONNX file that stock onnxruntime runs."""
    compressed = muquant.load(model)
    report = export_onnx(compressed, out, torch.zeros(2, *input_shape(compressed, model)), policy)
    output.result(report_export(output, report))


def report_export(output: Output, report: ExportReport) -> dict[str, Any]:
    """Say how each weight is served, and return the same as a document."""
    rows = [(use.weight, use.consumer, use.form, use.reason) for use in report.served]
    output.table(
        f"{report.path}, policy {report.policy}", ("weight", "used by", "served as", "because"), rows
    )
    output.say(f"Wrote {report.path}: {report.nbytes:,} bytes")
    return asdict(report)
