"""Tables of weights, of what stays float, and of how an exported file serves weights, as several commands
print them."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

from muquant.base.text import byte_size
from muquant.compression.artifact import LayerReport
from muquant.compression.auto import CRITERION
from muquant.compression.left import LeftFloat
from muquant.compression.weight_bytes import AverageBits, WeightBytes
from muquant.quantization.outcome import WeightSummary
from muquant_cli.output import Output
from muquant_onnx import ExportReport, InputAxis, LeftAlone, Served

SUMMARY = ("weight", "shape", "bits", "mu", "SQNR dB", "of output", "rounding")
"""The header of `summary_cells`."""
_HEADER = (*SUMMARY, "||dW||_2", "size", "of float")
_FEW = 5


def show_layers(output: Output, title: str, rows: Iterable[Sequence[object]]) -> None:
    """Print the table of compressed layers."""
    output.table(title, _HEADER, rows)


def layer_rows(report: Sequence[LayerReport]) -> list[tuple[object, ...]]:
    """Return the rows of that table, the sum of all as the last."""
    rows: list[tuple[object, ...]] = [
        (
            *summary_cells(layer),
            _flagged(layer.delta_norms.two),
            byte_size(layer.nbytes),
            f"1/{layer.float_nbytes / max(layer.nbytes, 1):.2f}",
        )
        for layer in report
    ]
    stored, plain = sum(layer.nbytes for layer in report), sum(layer.float_nbytes for layer in report)
    return [*rows, ("all", "", "", "", "", "", "", "", byte_size(stored), f"1/{plain / max(stored, 1):.2f}")]


def layers_document(report: Sequence[LayerReport]) -> dict[str, Any]:
    """Return the report as JSON values."""
    return {"layers": [asdict(layer) for layer in report]}


def summary_cells(weight: WeightSummary) -> tuple[object, ...]:
    """Return what a table of weights says of one of a module or of a graph."""
    return (
        weight.name,
        "x".join(map(str, weight.shape)),
        weight.bits,
        f"{weight.mu:.3g}",
        "-" if weight.sqnr is None else f"{weight.sqnr:.2f}",
        _output_quality(weight),
        f"{weight.rounding}, bias" if weight.bias_corrected else weight.rounding,
    )


def show_average_bits(output: Output, average: AverageBits) -> dict[str, Any]:
    """Say how many bits a weight has on average, and return the same as a document."""
    output.say(average.words)
    return {"average_bits": asdict(average)}


def show_exceptions(output: Output, report: Sequence[WeightSummary]) -> None:
    """Say which weights have another format than was asked for, or were compressed without samples although
    there are some, and why."""
    for note, count in Counter(weight.note for weight in report if weight.note).items():
        output.say(f"Weights of recurrent layers ({count}): {note}")
    rows = [(weight.name, weight.not_calibrated) for weight in report if weight.not_calibrated]
    if rows:
        title = f"Without samples, by the weights alone: {len(rows)}"
        output.table(title, ("weight", "because"), rows)


def show_left_alone(output: Output, left: Sequence[LeftFloat | LeftAlone]) -> dict[str, Any]:
    """Say what stays float and why, and return the same as a document.

    Args:
        output: where to.
        left: the most bytes first. The first few have a row each, the others one for each reason.
    """
    rows = [(each.name, each.nbytes, each.reason) for each in left[:_FEW]]
    more: dict[str, list[int]] = {}
    for each in left[_FEW:]:
        more.setdefault(each.reason, []).append(each.nbytes)
    rows += [(f"{len(sizes)} more", sum(sizes), reason) for reason, sizes in more.items()]
    if rows:
        cells = [(name, f"{nbytes:,}", reason) for name, nbytes, reason in rows]
        output.table(f"Left alone: {len(left)}", ("tensor", "bytes", "because"), cells)
    return {"left_alone": [asdict(each) for each in left]}


def show_weight_bytes(output: Output, weights: WeightBytes) -> dict[str, Any]:
    """Say how many bytes all weights take, as the last line of a command; return it as a document."""
    for line in weights.words.splitlines():
        output.say(line)
    return {"weight_bytes": weights.to_dict()}


def show_norms(output: Output, report: Sequence[LayerReport]) -> None:
    """Print ||dW||_p of each layer, and of its weight as a matrix."""
    rows = [
        (
            layer.name,
            _flagged(layer.delta_norms.one),
            _flagged(layer.delta_norms.two),
            _flagged(layer.delta_norms.inf),
            "the matrix: input size unknown" if layer.operator_norms is None else "the layer",
            _flagged(layer.matrix_norms.two),
        )
        for layer in report
    ]
    output.table(
        "||dW||_p of the quantization error: above 1 a layer may amplify an error",
        ("weight", "||dW||_1", "||dW||_2", "||dW||_inf", "of", "||dW||_2 of the matrix"),
        rows,
    )


def report_export(output: Output, report: ExportReport) -> dict[str, Any]:
    """Say how each weight is served, and return the same as a document."""
    show_served(output, report.path, report.policy, report.served)
    _show_axes(output, report.axes)
    for left in report.left_float:
        output.say(f"{left.name} is in the file as {left.nbytes:,} bytes of float32: {left.reason}")
    output.say(f"Wrote {report.path}: {report.nbytes:,} bytes")
    return asdict(report)


def _show_axes(output: Output, axes: Sequence[InputAxis]) -> None:
    """Say which sizes of inputs may change, and why the others may not."""
    shapes: dict[str, list[str]] = {}
    fixed: dict[str, list[str]] = {}
    for axis in axes:
        least = f"{axis.least} <= " if axis.least > 1 else ""
        most = "" if axis.most is None else f" <= {axis.most}"
        shapes.setdefault(axis.input, []).append(
            str(axis.size) if axis.reason else f"{least}{axis.size}{most}"
        )
        if axis.reason:
            fixed.setdefault(axis.reason, []).append(f"{axis.size} of {axis.input}")
    alike: dict[str, list[str]] = {}
    for name, sizes in shapes.items():
        alike.setdefault(", ".join(sizes), []).append(name)
    inputs = ", ".join(f"{_first_few(names)} ({sizes})" for sizes, names in alike.items())
    output.say(f"Inputs, any size where a name stands: {inputs}")
    for reason, which in fixed.items():
        output.say(f"Fixed: {_first_few(which)}: {reason}")


def _first_few(texts: Sequence[str]) -> str:
    more = f" and {len(texts) - _FEW} more" if len(texts) > _FEW else ""
    return ", ".join(texts[:_FEW]) + more


def show_served(output: Output, path: str, policy: str, served: Iterable[Served]) -> None:
    """Print how each use of each weight is served."""
    uses = Counter((use.weight, use.consumer, use.form, use.reason) for use in served)
    rows = [
        (weight, f"{consumer} ({count} times)" if count > 1 else consumer, *how)
        for (weight, consumer, *how), count in uses.items()
    ]
    output.table(f"{path}, policy {policy}", ("weight", "used by", "served as", "because"), rows)


def _output_quality(layer: WeightSummary) -> str:
    """The quality of the layer's output with the nearest levels, and as it became, in dB."""
    if layer.output_sqnr is None or layer.nearest_output_sqnr is None:
        return "-"
    if layer.output_sqnr == layer.nearest_output_sqnr:
        return f"{layer.output_sqnr:.1f}"
    return f"{layer.nearest_output_sqnr:.1f} to {layer.output_sqnr:.1f}"


def _flagged(norm: float) -> str:
    return f"{norm:.3g}{' (> 1)' if norm > CRITERION else ''}"
