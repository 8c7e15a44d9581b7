"""`muquant compress` on files that hold a graph of operators instead of a model's layers."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import muquant
from muquant.base.errors import InputError
from muquant_cli.options.budget import Budget, keep_plan
from muquant_cli.options.calibration import warn_without_samples
from muquant_cli.output import Output, kilobytes
from muquant_cli.tables import SUMMARY, show_served, summary_cells
from muquant_onnx import CompressReport, compress_onnx, compress_program, plan_onnx, plan_program


@dataclass(frozen=True)
class GraphKind:
    """A line of the registry.

    Attributes:
        compress: such a file, with the arguments of `compress_onnx`.
        plan: for such a file, with the arguments of `plan_onnx`.
    """

    compress: Callable[..., CompressReport]
    plan: Callable[..., muquant.Plan]


GRAPHS = {
    ".onnx": GraphKind(compress_onnx, plan_onnx),
    ".pt2": GraphKind(compress_program, plan_program),
}
"""Suffix -> what is done with such a file."""

_HEADER = (*SUMMARY, "size", "of stored")
_FEW = 5


def compress_graph(
    output: Output,
    source: Path,
    out: Path,
    spec: muquant.MuLawSpec,
    state: str | None,
    budget: Budget,
    **options: Any,
) -> dict[str, Any]:
    """Compress a file of one of `GRAPHS` into an ONNX file, say how it went, and return it as a document.

    Raises:
        InputError: something is asked for that needs a model's layers, or the file cannot be compressed.
    """
    if out.suffix != ".onnx":
        raise InputError(
            f"{source} is a graph of operators, not a model of layers; expected an output that ends in "
            f".onnx, found {out}"
        )
    if state is not None:
        raise InputError(f"--state {state}: {source} brings its own weights; leave the option out")
    if options["layers"] == "auto":
        raise InputError(f"--layers auto needs a model of layers, found {source}; pick the layers by name")
    kind = GRAPHS[source.suffix]
    options, plan = budget.follow(output, out, partial(kind.plan, source, spec), options)
    with output.progress("Compressing") as update:
        report = kind.compress(
            source, out, spec, on_layer=lambda name, index, count: update(index, count, name), **options
        )
    rows = [
        (
            *summary_cells(weight),
            kilobytes(weight.nbytes),
            f"1/{weight.source_nbytes / max(weight.nbytes, 1):.2f}",
        )
        for weight in report.weights
    ]
    output.table(str(source), _HEADER, rows)
    warn_without_samples(output, options)
    show_served(
        output, report.path, report.policy, (use for weight in report.weights for use in weight.served)
    )
    if report.left_alone:
        few = ", ".join(f"{each.name} ({each.reason})" for each in report.left_alone[:_FEW])
        output.say(f"Left alone: {len(report.left_alone)}, the first {few}")
    output.say(f"Wrote {out}: {report.nbytes:,} bytes, of {report.source_nbytes:,}")
    return {**asdict(report), **({} if plan is None else keep_plan(output, plan, out, report.nbytes))}
