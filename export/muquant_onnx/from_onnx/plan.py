"""A plan for the weights of an ONNX file."""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor

from muquant.base.errors import InputError, first_line, naming
from muquant.compression.budget import Drop, Plan
from muquant.compression.budget.answers import answers, count_changed
from muquant.compression.budget.choose import OnStep, choose
from muquant.compression.budget.curve import WidthCurve, measure
from muquant.compression.budget.limits import Limits
from muquant.compression.calibration.samples import split
from muquant.compression.selection import pick
from muquant.format.spec import MuLawSpec
from muquant.models.calls import Example
from muquant.quantization.observers import observer_class
from muquant.quantization.quantize import choose_rounding
from muquant.quantization.resume import Finished
from muquant_onnx.from_onnx.calibrate import graph_samples
from muquant_onnx.from_onnx.compress import compress_onnx, pinned_formats
from muquant_onnx.from_onnx.feeds import Feeds
from muquant_onnx.from_onnx.find import require_weights
from muquant_onnx.from_onnx.floats import read_float
from muquant_onnx.from_onnx.read import read_graph
from muquant_onnx.lowering.lower import check_policy


def plan_onnx(
    source: str | os.PathLike[str],
    spec: MuLawSpec | None = None,
    *,
    max_bytes: int | None = None,
    max_drop: float | None = None,
    layers: str = "all",
    overrides: Mapping[str, int] | None = None,
    rounding: str | None = None,
    observer: str = "search",
    calibration: Example | None = None,
    corrections: bool = True,
    policy: str = "auto",
    finished: Finished | None = None,
    on_step: OnStep | None = None,
) -> Plan:
    """Choose the width of each weight of the ONNX file `source`, 2 to 8 bits, by how much its noise matters.

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
        rounding: as in `compress_onnx`, for the plans that are tried.
        observer: as in `compress_onnx`.
        calibration: as in `compress_onnx`; needed with `max_drop`.
        corrections: as in `compress_onnx`, for the plans that are tried.
        policy: likewise.
        finished: likewise; the plan that is taken is among them.
        on_step: as in `plan_widths`.

    Raises:
        InputError: no limit is given, no plan keeps within the limits, or whatever `compress_onnx` refuses.
    """
    limits, spec, path = Limits(max_bytes, max_drop), spec or MuLawSpec(), Path(source)
    limits.check(spec, layers, overrides, calibrated=calibration is not None)
    observer_class(observer)
    options: dict[str, Any] = {
        "layers": layers,
        "rounding": choose_rounding(rounding, calibrated=calibration is not None),
        "observer": observer,
        "calibration": calibration,
        "corrections": corrections,
        "policy": check_policy(policy),
        "finished": finished,
    }
    model = read_graph(path).model
    found, _ = require_weights(model, source)
    picked = pick([weight.labels for weight in found], layers, "layers")
    pinned = {
        found[place].name: own.bits for place, own in pinned_formats(found, picked, spec, overrides).items()
    }
    curves: list[WidthCurve] = []
    for weight, samples in graph_samples(path, [found[place] for place in picked], calibration):
        if on_step is not None:
            on_step(f"measuring {weight.name}", len(curves), len(picked))
        with naming(weight.name):
            values, asked = read_float(weight.tensor), pinned.get(weight.name)
            curves.append(measure(weight.name, values, spec, weight.channel_axis, observer, samples, asked))

    def compressed(plan: Plan, destination: Path) -> None:
        compress_onnx(source, destination, spec, overrides=plan.overrides, **options)

    trial = None if max_drop is None else _trial(path, model.graph, compressed, calibration)
    return choose(curves, limits, layers, trial, on_step)


def _trial(
    source: Path, graph: ir.Graph, compressed: Callable[[Plan, Path], None], calibration: Example | None
) -> Callable[[Plan], Drop]:
    """Return what compares the answers of a compressed file with those of `source`."""
    _, held_out = split(calibration)  # type: ignore[arg-type]  # with a drop there are samples
    feeds = Feeds.of(graph, held_out, source)
    exact = list(_answers(feeds, source))

    def trial(plan: Plan) -> Drop:
        with tempfile.TemporaryDirectory() as folder:
            tried = Path(folder, "tried.onnx")
            compressed(plan, tried)
            return count_changed(exact, _answers(feeds, tried))

    return trial


def _answers(feeds: Feeds, path: Path) -> Iterator[Tensor]:
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
