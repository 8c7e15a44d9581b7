"""What the weights of a graph cost and lose at each width, and what that does to its answers."""

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import psutil
from torch import Tensor

from muquant.compression.answers.compare import FloatAnswers
from muquant.compression.answers.report import FIT, HELD_OUT, SYNTHETIC
from muquant.compression.budget.measure import Measured, Measurement, OnStep, measure_all, runs_of
from muquant.compression.budget.probe import MOST_JUDGED, Probe, probed_samples
from muquant.compression.options import CompressionOptions
from muquant_onnx.format.names import label
from muquant_onnx.from_onnx.check import SessionRun
from muquant_onnx.from_onnx.feeds import Batch, Feeds
from muquant_onnx.from_onnx.find import FoundWeight, find_weights
from muquant_onnx.from_onnx.floats import read_float
from muquant_onnx.from_onnx.gradients import graph_gradients
from muquant_onnx.from_onnx.opened import opened
from muquant_onnx.from_onnx.read import read_graph
from muquant_onnx.serving.sessions import load_session

_MADE_UP = 8
MEMORY = 4
"""onnxruntime may take so many times a file's bytes to run it with weights that can be replaced."""
_SETTABLE = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.DOUBLE}
_OLDEST_IR = 4
"""The first with constants that callers may set."""


def measure_file(
    source: Path,
    weights: Mapping[FoundWeight, int | None],
    options: CompressionOptions,
    on_step: OnStep | None = None,
) -> Measurement:
    """Measure weights of a graph, which onnxruntime runs on a few of the samples to fit to, or
    on inputs that are made up where there are none.

    Args:
        source: the ONNX file in which `weights` were found.
        weights: -> the width that was asked for, or None.
        options: of its compression.
        on_step: called before each weight.

    Raises:
        InputError: the samples do not fit the graph's inputs.
    """
    given = [
        Measured(weight.name, partial(read_float, weight.tensor), weight.channels, pinned)
        for weight, pinned in weights.items()
    ]
    probe, batches = _probe(source, [weight.name for weight in weights], options)
    gradients = None if probe is None else graph_gradients(source, batches, runs_of(on_step))
    measured = measure_all(given, options, probe, gradients, on_step)
    return replace(measured, made_up=options.samples is None or options.made_up)


def ask_held_out(source: Path, options: CompressionOptions) -> FloatAnswers[Batch]:
    """Run the float file on held-out samples, beside which compressed ones are judged.

    Args:
        source: the file.
        options: of its compression; with samples.
    """
    assert options.samples is not None
    run = SessionRun(load_session(source))
    samples = options.samples[1].some(MOST_JUDGED)
    batches = Feeds.of(read_graph(source).model.graph, samples, source).batches
    return FloatAnswers.of(((batch, run(batch), batch.count) for batch in batches), run, HELD_OUT, math.inf)


def _probe(
    source: Path, names: list[str], options: CompressionOptions
) -> tuple[Probe | None, Sequence[Batch]]:
    """Return what runs the graph with some of the named weights replaced, None where it cannot be run; and
    its inputs, one sample each."""
    if options.samples is None and not options.synthetic:
        return None, ()
    read = read_graph(source)
    if MEMORY * read.nbytes > psutil.virtual_memory().available:
        return None, ()
    alone: Sequence[Batch] = ()
    batches: Sequence[Batch] = ()
    if options.samples is not None:
        samples = options.samples[0].some(MOST_JUDGED)
        alone = Feeds.of(read.model.graph, samples, source, 1).batches
        together = samples.cut(probed_samples(len(names)))
        batches = Feeds.of(read.model.graph, together, source).batches
    try:
        if options.samples is None:
            made = SessionRun(load_session(source)).in_place_of_samples(read.model.graph, _MADE_UP)
            alone = batches = [Batch(feed, 1) for feed in made]
        inputs = _settable(read.model, names)
        settable = SessionRun(opened(read.model))
        exact = FloatAnswers.of(
            ((batch, settable(batch), batch.count) for batch in batches),
            settable,
            SYNTHETIC if options.samples is None else FIT,
            math.inf,
        )
    except Exception:  # onnxruntime's errors have no common base; the check of the answers says what failed
        return None, ()
    if exact.not_checked:
        return None, ()

    def probe(values: Mapping[str, Tensor], most: int) -> float:
        set_to = {
            inputs[name][0]: value.numpy().astype(inputs[name][1])
            for name, value in values.items()
            if name in inputs
        }
        return exact.distortion(lambda batch: settable(replace(batch, feed={**batch.feed, **set_to})), most)

    return probe, alone


def _settable(model: ir.Model, names: Collection[str]) -> dict[str, tuple[str, np.dtype[Any]]]:
    """Let callers set the named weights, in place, and return of each the input for that, and its type. Those
    of types that numpy does not have are left out."""
    model.ir_version = max(model.ir_version, _OLDEST_IR)
    inputs: dict[str, tuple[str, np.dtype[Any]]] = {}
    for place, weight in enumerate(find_weights(model)[0]):
        tensor = weight.tensor
        if weight.name not in names or tensor.dtype not in _SETTABLE:
            continue
        name = label("muquant", "set", place)
        value = ir.Value(
            name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(weight.shape), const_value=tensor
        )
        ir.convenience.replace_all_uses_with(weight.value, value)
        model.graph.inputs.append(value)
        model.graph.initializers[name] = value
        inputs[weight.name] = name, tensor.dtype.numpy()
    return inputs
