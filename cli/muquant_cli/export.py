"""`muquant export`."""

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from muquant_cli.artifacts import open_artifact
from muquant_cli.options import module_option, out_option, policy_option
from muquant_cli.output import Output, command
from muquant_onnx import ExportReport, Served, export_onnx


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@out_option("model.onnx")
@module_option
@policy_option
@command
def export(output: Output, model: Path, out: Path, module: str | None, policy: str) -> None:
    """Write MODEL, a .mq file, as an ONNX file that stock onnxruntime runs."""
    compressed, source = open_artifact(model, module)
    report = export_onnx(compressed, out, source.require_example(), policy)
    output.result(report_export(output, report))


def report_export(output: Output, report: ExportReport) -> dict[str, Any]:
    """Say how each weight is served, and return the same as a document."""
    show_served(output, report.path, report.policy, report.served)
    output.say(f"Wrote {report.path}: {report.nbytes:,} bytes")
    return asdict(report)


def show_served(output: Output, path: str, policy: str, served: Iterable[Served]) -> None:
    """Print how each use of each weight is served."""
    rows = [(use.weight, use.consumer, use.form, use.reason) for use in served]
    output.table(f"{path}, policy {policy}", ("weight", "used by", "served as", "because"), rows)
