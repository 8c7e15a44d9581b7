"""Verification of an ONNX file, and its tables."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import muquant
from muquant.base.text import byte_size
from muquant.compression.calibration import Samples
from muquant.models.calls import Example, Inputs
from muquant.quantization.outcome import finite
from muquant_cli.output import Output
from muquant_onnx import VerifyReport, verify, verify_onnx
from muquant_onnx.verification.costs import LoadCost
from muquant_onnx.verification.runtimes import RuntimeCheck, RuntimeRun

_HEADER = ("how", "difference", "same argmax", "", "kernels", "load", "peak", "settled")


def run_verify(
    output: Output,
    compressed: muquant.CompressedModel,
    file: Path,
    inputs: Example,
    what: str,
    runtimes: Sequence[str] = ("onnxruntime",),
) -> VerifyReport:
    """Verify a file beside its model, and say how it went."""
    with output.progress(f"Verifying {file.name}") as update:
        update(0, 1, f"on {len(Inputs.of(inputs).tensors[0])} inputs")
        report = verify(compressed, file, inputs, runtimes=runtimes)
    _show(output, report, file, f"against PyTorch on {report.count} inputs ({what})")
    return report


def run_verify_onnx(
    output: Output, source: Path, file: Path, samples: Samples | None, runtimes: Sequence[str]
) -> VerifyReport:
    """Verify a file beside the float ONNX file it was made from, and say how it went."""
    with output.progress(f"Verifying {file.name}") as update:
        update(0, 1, f"beside {source.name}")
        report = verify_onnx(source, file, samples, runtimes)
    what = "inputs that were made up" if samples is None else "samples"
    _show(output, report, file, f"against its codes decoded by numpy, on {report.count} {what}")
    return report


def _show(output: Output, report: VerifyReport, file: Path, title: str) -> None:
    """Print what a verification found."""
    weights = [
        (
            check.name,
            *("equal" if same else "DIFFERENT" for same in (check.numpy, check.folded, check.unfolded)),
        )
        for check in report.weights
    ]
    if weights:
        header = ("weight", "numpy", "onnxruntime, folded", "not folded")
        output.table("Weights, bit for bit", header, weights)
    runs: list[RuntimeRun] = [*report.floats, *report.runtimes]
    counts = sorted({count for each in runs if each.cost for count in each.cost.latency})
    rows = []
    for plain in report.floats:
        rows.append((f"{plain.runtime} {plain.version}: float", "", "", "", "", *_costs(plain, None, counts)))
        rows += [
            (f"{check.runtime}, {_way(check)}", *_parity(check), *_costs(check, plain.cost, counts))
            for check in report.runtimes
            if check.runtime == plain.runtime
        ]
    batches = (f"batch {count}" for count in counts)
    output.table(f"Outputs {title}; costs as multiples of the float file's", (*_HEADER, *batches), rows)
    for line in _failures(report, file):
        output.say(line)
    for name, line in report.missing.items():
        output.say(f"{name}: {line}")
    if report.answers is not None:
        output.say(report.answers.words)
    output.say(f"{_verdict(report.passed)}: {file}")


def verify_document(report: VerifyReport) -> dict[str, Any]:
    """Return the report as JSON values; a difference that is infinite is None."""
    document = asdict(report)
    for check in document["runtimes"]:
        check["difference"] = finite(check["difference"])
    answers = None if report.answers is None else report.answers.to_dict()
    return {"passed": report.passed, **document, "answers": answers}


def _failures(report: VerifyReport, file: Path) -> Iterator[str]:
    """Say which runtimes cannot run a file, and why."""
    failures: dict[tuple[str, str], list[str]] = {}
    for check in report.runtimes:
        if check.failed:
            failures.setdefault((f"{check.runtime} {check.version}", check.failed), []).append(_way(check))
    for (runtime, reason), ways in failures.items():
        yield f"{runtime} cannot run {file} ({', '.join(ways)}): {reason}"
    for plain in report.floats:
        if plain.failed:
            yield f"{plain.runtime} {plain.version} cannot run the float file: {plain.failed}"


def _way(check: RuntimeCheck) -> str:
    return check.setting if check.policy is None else f"policy {check.policy}"


def _parity(check: RuntimeCheck) -> tuple[str, ...]:
    running = check.operators.get("MatMulNBits", 0)
    return (
        "-" if check.failed else f"{check.difference:.1e}",
        "-" if check.agreement is None else f"{check.agreement:.2%}",
        _verdict(check.passed),
        f"{running} of {check.kernels}" if running or check.kernels else "-",
    )


def _costs(run: RuntimeRun, beside: LoadCost | None, counts: Sequence[int]) -> tuple[str, ...]:
    """The cells of what a file costs, as multiples of what another does where there is one."""
    if run.cost is None:
        return tuple("-" for _ in (*_HEADER[5:], *counts))
    found, other = (
        () if cost is None else (cost.seconds, cost.peak, cost.settled, *map(cost.latency.get, counts))
        for cost in (run.cost, beside)
    )
    if other:
        return tuple(
            f"{one / two:.2f}" if one and two else "-" for one, two in zip(found, other, strict=True)
        )
    seconds, peak, settled, *latency = found
    memory = ("-" if nbytes is None else byte_size(int(nbytes)) for nbytes in (peak, settled))
    return (_milliseconds(seconds), *memory, *map(_milliseconds, latency))


def _verdict(passed: bool) -> str:
    return "PASS" if passed else "FAIL"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{seconds * 1e3:.3g} ms"
