"""Tuning of a graph: by a copy in PyTorch, whose codes, steps and biases go back into the graph."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor

from muquant.base.errors import InputError
from muquant.compression.options import CompressionOptions
from muquant.compression.tuning import Subject, TuningReport, batches_of, may_move, tune
from muquant.format.tensor import QuantizedTensor
from muquant.models.calls import Inputs
from muquant_onnx.from_onnx.constants import constant
from muquant_onnx.from_onnx.feeds import Feeds
from muquant_onnx.from_onnx.find import FoundWeight
from muquant_onnx.from_onnx.floats import FLOATS, float_tensor, read_float
from muquant_onnx.from_onnx.gradients import torch_copy
from muquant_onnx.torch_copy import TorchCopy

_MOVING = {
    "Add": {0, 1},
    "BatchNormalization": {1, 2},
    "Conv": {2},
    "ConvTranspose": {2},
    "FusedConv": {2},
    "FusedGemm": {2},
    "GRU": {3},
    "Gemm": {2},
    "GroupNormalization": {1, 2},
    "InstanceNormalization": {1, 2},
    "LSTM": {3},
    "LayerNormalization": {1, 2},
    "Mul": {0, 1},
    "RMSNormalization": {1},
    "RNN": {3},
    "SimplifiedLayerNormalization": {1},
    "SkipLayerNormalization": {2, 3, 4},
    "SkipSimplifiedLayerNormalization": {2, 3},
    "Sub": {0, 1},
}
"""Operator -> its inputs that are biases, or what a norm scales or shifts by."""
_RECURRENT = {"GRU", "LSTM", "RNN"}

Codes = dict[FoundWeight, QuantizedTensor]
OnStep = Callable[[str, int, int], None]
"""("tuning", step, steps)"""


def tune_graph(
    source: Path,
    model: ir.Model,
    done: Mapping[FoundWeight, QuantizedTensor],
    options: CompressionOptions,
    on_step: OnStep | None,
) -> tuple[Codes, TuningReport]:
    """Train the weights of a graph together; return those that have changed, and how it went.

    Args:
        source: the ONNX file that the graph was read from.
        model: it, its weights in place as floats; biases are corrected, and biases and norms are changed in
            place where `options.corrections` are wanted.
        done: its weights in few bits.
        options: of its compression, with samples.
        on_step: called after each step.

    Raises:
        InputError: the samples do not fit the graph's inputs.
    """
    assert options.samples is not None
    batches = [Feeds.of(model.graph, samples, source).batches for samples in batches_of(options.samples)]
    fit, held_out = (
        [Inputs.of({name: torch.from_numpy(value) for name, value in batch.feed.items()}) for batch in own]
        for own in batches
    )
    try:
        copy, (reference, _) = TorchCopy(model), torch_copy(source, batches[1][0])
    except InputError as error:
        return {}, TuningReport(not_tuned=f"the graph has no copy in PyTorch to train: {error}")
    mapped = {weight: tensor for weight, tensor in done.items() if tensor.spec.domain == "mapped"}
    with torch.no_grad():
        for weight, tensor in mapped.items():  # not meant to come near the float weight
            copy.get_parameter(copy.path(weight.value)).copy_(tensor.dequantize())
    paths = {copy.path(weight.value): weight for weight in done if weight not in mapped}
    free = {copy.path(value): value for value in _free(copy, done)} if options.corrections else {}
    tuned = tune(
        Subject(
            copy,
            reference,
            {path: (read_float(weight.tensor), done[weight]) for path, weight in paths.items()},
            tuple(free),
            tuple(dict.fromkeys(copy.layer(use.node) for weight in done for use in weight.uses)),
        ),
        fit,
        held_out,
        max_seconds=options.max_seconds,
        folder=None if options.finished is None else options.finished.folder,
        on_step=None if on_step is None else lambda step, steps, _: on_step("tuning", step, steps),
    )
    if not tuned.report.step:
        return {}, tuned.report
    for path, value in free.items():
        _set(value, tuned.rest[path])
    return {weight: tuned.weights[path] for path, weight in paths.items()}, tuned.report


def _free(copy: TorchCopy, done: Mapping[FoundWeight, QuantizedTensor]) -> Iterator[ir.Value]:
    """Yield biases, and what norms scale and shift by."""
    weights = {weight.value for weight in done}
    for value in copy.floats:
        tensor = constant(value)
        if value in weights or value.is_graph_input() or value.is_graph_output():
            continue
        if tensor is None or tensor.dtype not in FLOATS:
            continue
        uses = list(_uses(value))
        if not uses or any(index not in _MOVING.get(node.op_type, ()) for node, index in uses):
            continue
        numbers: Tensor = copy.get_parameter(copy.path(value))
        if all(node.op_type in _RECURRENT for node, _ in uses):  # [directions, gates]
            numbers = numbers.reshape(-1)
        if may_move(numbers):
            yield value


def _uses(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Yield what takes a value, through operators that do nothing to it."""
    for node, index in value.uses():
        if node.op_type == "Identity" and not node.domain:
            yield from _uses(node.outputs[0])
        else:
            yield node, index


def _set(value: ir.Value, values: Tensor) -> None:
    """Give a constant other numbers, in its type."""
    tensor, node = constant(value), value.producer()
    assert tensor is not None
    new = float_tensor(values, ir.DataType(tensor.dtype), str(value.name))
    if node is None:
        value.const_value = new
    else:
        node.attributes["value"] = ir.AttrTensor("value", new)
