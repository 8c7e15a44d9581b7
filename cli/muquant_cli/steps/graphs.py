"""`muquant compress` on files that hold a graph of operators instead of a model's layers."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

from muquant import AnswersCheck
from muquant.base.errors import InputError
from muquant.base.text import byte_size
from muquant.compression.options import CompressionOptions
from muquant_cli.card import of_compression, write_card
from muquant_cli.options.answers import Wanted
from muquant_cli.options.budget import Budget, keep_plan
from muquant_cli.options.calibration import warn_without_samples
from muquant_cli.output import Output
from muquant_cli.tables import (
    SUMMARY,
    show_average_bits,
    show_exceptions,
    show_left_alone,
    show_served,
    show_weight_bytes,
    summary_cells,
)
from muquant_onnx.from_onnx.compress import compress_file
from muquant_onnx.from_onnx.opset import raised
from muquant_onnx.from_onnx.plan import plan_file
from muquant_onnx.from_torch.program import program_as_onnx
from muquant_onnx.lowering.targets import Target

GRAPHS: dict[str, Callable[[Path, Path], AbstractContextManager[Path]]] = {
    ".onnx": lambda source, _: nullcontext(source),
    ".pt2": program_as_onnx,
}
"""Suffix -> such a file, and the output beside which there is room -> it as an ONNX file, for a while."""

_HEADER = (*SUMMARY, "size", "of stored")


def compress_graph(
    output: Output,
    source: Path,
    out: Path,
    state: str | None,
    options: CompressionOptions,
    budget: Budget,
    wanted: Wanted,
    target: Target,
    *,
    card: bool,
) -> tuple[dict[str, Any], AnswersCheck | None]:
    """Compress a file of one of `GRAPHS` into an ONNX file, and its card, say how it went, and return that
    as a document, and what the check of the answers found.

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
    if options.layers == "auto":
        raise InputError(f"--layers auto needs a model of layers, found {source}; pick the layers by name")
    with GRAPHS[source.suffix](source, out) as graph, raised(graph) as file:
        file.check_output(out)
        options, plan = budget.follow(
            output,
            out,
            options,
            lambda limits, asked, on_step: plan_file(file, limits, asked, target, on_step),
        )
        with output.progress("Compressing") as update:
            report = compress_file(
                file,
                out,
                options,
                target,
                check=wanted.check,
                on_layer=lambda name, index, count: update(index, count, name),
            )
    if report.raised_from is not None:
        output.say(f"{source} had opset {report.raised_from} and was raised to 13: its outputs are the same")
    if report.zero_inputs:
        output.say(f"The samples do not give {', '.join(report.zero_inputs)}: zeros stood for it")
    rows = [
        (
            *summary_cells(weight),
            byte_size(weight.nbytes),
            f"1/{weight.source_nbytes / max(weight.nbytes, 1):.2f}",
        )
        for weight in report.weights
    ]
    output.table(str(source), _HEADER, rows)
    if report.tuning is not None:
        output.say(report.tuning.words)
    average = show_average_bits(output, report.average_bits)
    if report.synthetic:
        output.say(
            f"Without samples, {report.synthetic} inputs that were made up stood for them; a few hundred of "
            "what the model will be given, without labels, do better: see --calibration"
        )
    else:
        warn_without_samples(output, options)
    show_exceptions(output, report.weights)
    show_served(
        output, report.path, report.policy, (use for weight in report.weights for use in weight.served)
    )
    output.say(f"Wrote {out}: {report.nbytes:,} bytes, of {report.source_nbytes:,}")
    document = (
        asdict(report) | average | ({} if plan is None else keep_plan(output, plan, out, report.nbytes))
    )
    document |= show_left_alone(output, report.left_alone) | wanted.show(output, report.answers)
    document |= show_weight_bytes(output, report.weight_bytes)
    if card:
        document |= write_card(
            output, out, {"compress": of_compression(str(source), out, report, report.answers)}
        )
    return document, report.answers
