"""A plan for the weights of an ONNX file."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
import torch

from muquant.base.errors import InputError, first_line
from muquant.base.files import temporary_folder
from muquant.compression.budget import Drop, Plan
from muquant.compression.budget.answers import Answers, answers, count_changed
from muquant.compression.budget.choose import TryPlan, choose
from muquant.compression.budget.limits import Limits
from muquant.compression.budget.measure import OnStep
from muquant.compression.calibration import Calibration
from muquant.compression.options import CompressionOptions
from muquant.compression.selection import Layers
from muquant.format.spec import MuLawSpec
from muquant.quantization.resume import FinishedWeights
from muquant_onnx.from_onnx.compress import compress_file, own_formats, pick_weights
from muquant_onnx.from_onnx.feeds import Feeds, graph_arguments
from muquant_onnx.from_onnx.find import require_weights
from muquant_onnx.from_onnx.given import GivenModel, as_file
from muquant_onnx.from_onnx.measure import measure_file
from muquant_onnx.from_onnx.opset import RaisedFile, raised
from muquant_onnx.from_onnx.read import read_graph
from muquant_onnx.lowering.targets import DEFAULT, Target, choose_target


def plan_onnx(
    source: GivenModel,
    spec: MuLawSpec | None = None,
    *,
    max_bytes: int | None = None,
    max_drop: float | None = None,
    layers: Layers = "all",
    overrides: Mapping[str, int] | None = None,
    rounding: str | None = None,
    max_seconds: float | None = None,
    observer: str = "search",
    calibration: Calibration | None = None,
    corrections: bool = True,
    target: str = "onnxruntime",
    policy: str | None = None,
    functions: bool | None = None,
    finished: FinishedWeights | None = None,
    on_step: OnStep | None = None,
) -> Plan:
    """Choose the width of each weight of the ONNX model `source`, 2 to 8 bits, by how much its noise matters.

    `compress_onnx(source, destination, spec, layers=plan.layers, overrides=plan.overrides, ...)` then follows
    the plan. It is made as `muquant.plan_widths` makes it; plans that are tried are compressed into temporary
    files, and onnxruntime runs them with the settings that it comes with.

    Args:
        source: as in `compress_onnx`.
        spec: the format but for its width.
        max_bytes: as in `plan_widths`.
        max_drop: as in `plan_widths`; the answer is read from the graph's first output.
        layers: which weights to compress, as in `compress_onnx`.
        overrides: layers -> a width that is theirs, as in `compress_onnx`.
        rounding: as in `compress_onnx`, for the plans that are tried, which are not tuned.
        max_seconds: as in `compress_onnx`; nothing is tuned here.
        observer: as in `compress_onnx`.
        calibration: as in `compress_onnx`; needed with `max_drop`.
        corrections: as in `compress_onnx`, for the plans that are tried.
        target: likewise.
        policy: likewise.
        functions: likewise.
        finished: likewise; the plan that is taken is among them.
        on_step: as in `plan_widths`.

    Raises:
        InputError: no limit is given, no plan keeps within the limits, or whatever `compress_onnx` refuses.
    """
    options = CompressionOptions(
        spec=spec,
        layers=layers,
        overrides=overrides or {},
        rounding=rounding,
        max_seconds=max_seconds,
        observer=observer,
        calibration=calibration,
        corrections=corrections,
        finished=finished,
    )
    limits, chosen = Limits(max_bytes, max_drop), choose_target(target, policy, functions)
    with as_file(source) as path, raised(path) as file:
        return plan_file(file, limits, options, chosen, on_step)


def plan_file(
    source: RaisedFile,
    limits: Limits,
    options: CompressionOptions,
    target: Target = DEFAULT,
    on_step: OnStep | None = None,
) -> Plan:
    """`plan_onnx` of a file that `raised` has yielded, with its options as objects."""
    limits.check(options)
    model = read_graph(source.path).model
    options = options.taken_by(graph_arguments(model.graph)).untuned
    picked = pick_weights(require_weights(model, source.path)[0], options.layers)
    pinned = own_formats(picked, options)
    widths = {weight: pinned[weight].bits if weight in pinned else None for weight in picked}
    curves = measure_file(source.path, widths, options, on_step).trusted()
    trial = None if limits.max_drop is None else _trial(source, model.graph, options, target)
    return choose(curves, limits, options.layers, trial, on_step)


def _trial(source: RaisedFile, graph: ir.Graph, options: CompressionOptions, target: Target) -> TryPlan:
    """Return what compares the answers of a compressed file with those of `source`.

    Args:
        source: the file.
        graph: that was read from it.
        options: but for the widths; with samples.
        target: of the files that are tried.
    """
    assert options.samples is not None
    feeds = Feeds.of(graph, options.samples[1], source.path)
    exact = list(_answers(feeds, source.path))

    def trial(plan: Plan) -> Drop:
        with temporary_folder() as folder:
            tried = Path(folder, "tried.onnx")
            compress_file(source, tried, replace(options, overrides=plan.overrides), target)
            return count_changed(exact, _answers(feeds, tried))

    return trial


def _answers(feeds: Feeds, path: Path) -> Iterator[Answers]:
    """Yield the answers of the model at `path`, batch by batch."""
    for outputs in feeds.run(path, "default"):
        try:
            first = torch.from_numpy(outputs[0])
        except TypeError as error:  # a sequence, a map, or an array of texts
            raise InputError(
                f"max_drop of {path}: the first output is no tensor of numbers ({first_line(error)}); give "
                "max_bytes instead"
            ) from error
        yield answers(first)
