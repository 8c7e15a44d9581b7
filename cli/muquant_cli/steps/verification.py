"""Verification of an ONNX file, and its tables."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import muquant
from muquant.base.text import byte_size
from muquant.models.calls import Example, Inputs
from muquant_cli.output import Output
from muquant_onnx import VerifyReport, verify
from muquant_onnx.verification.costs import BATCHES


def run_verify(
    output: Output, compressed: muquant.CompressedModel, file: Path, inputs: Example, what: str
) -> VerifyReport:
    """Verify, and say how it went."""
    with output.progress(f"Verifying {file.name}") as update:
        update(0, 1, f"on {len(Inputs.of(inputs).tensors[0])} inputs")
        report = verify(compressed, file, inputs)
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


def _verdict(passed: bool) -> str:
    return "PASS" if passed else "FAIL"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.3g} ms"
