"""Run a graph on samples under onnxruntime, and keep the moments of what its weights are multiplied by."""

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import Generator, Tensor
from torch.nn import functional

from muquant.compression.calibration import in_parts
from muquant.compression.calibration.operators import drawn, patches
from muquant.models.calls import Inputs
from muquant.quantization.moments import InputMoments, Moments, MomentSums
from muquant_onnx.files.write import write_graph
from muquant_onnx.format.names import label
from muquant_onnx.from_onnx.feeds import Feeds
from muquant_onnx.from_onnx.find import FoundWeight, Use, find_weights
from muquant_onnx.from_onnx.read import read_graph


def graph_samples(
    source: Path, weights: Sequence[FoundWeight], samples: tuple[Inputs, Inputs] | None
) -> Iterator[tuple[FoundWeight, InputMoments | None]]:
    """Yield `weights` with what is known of their layers' inputs.

    Nothing is known of embeddings, of transposed convolutions, of left-hand weights, of those behind a
    Reshape, of stacked ones (of a MatMul, with other than two axes), of those whose uses differ in the axis
    of their channels, and of those inside branches and loops.

    Args:
        source: the ONNX file in which `weights` were found.
        weights: of which to collect.
        samples: for the graph's inputs [N, ...], by name or in order, to fit to and held out; None where
            nothing is known of any weight's inputs.

    Raises:
        InputError: the samples do not fit the graph's inputs or are too few, or onnxruntime does not run it.
    """
    inputs = {weight: _matrix_shape(weight)[1] for weight in weights}

    def collect(part: list[FoundWeight], own: Inputs) -> dict[FoundWeight, Moments]:
        known = _collect(source, [weight.name for weight in part], own)
        return {weight: known[weight.name] for weight in part if weight.name in known}

    return in_parts(inputs, samples, collect)


def _collect(source: Path, names: Sequence[str], samples: Inputs) -> dict[str, Moments]:
    """Return moments, by name, for those of the weights for which they can be known."""
    model = read_graph(source).model
    found = [weight for weight in find_weights(model)[0] if weight.name in names]
    seen = [weight for weight in found if all(_seen(weight, use, model.graph) for use in weight.uses)]
    sums = {weight.name: MomentSums(weight.name, _matrix_shape(weight)) for weight in seen}
    uses = [(weight, use) for weight in seen for use in weight.uses]
    feeds = Feeds.of(model.graph, samples, source)
    shown = [
        _show(model.graph, weight, use, label("muquant", "shown", i)) for i, (weight, use) in enumerate(uses)
    ]
    model.graph.outputs.clear()
    model.graph.outputs.extend(shown)
    model.graph.sort()
    generator = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        write_graph(model, path, Path(folder))
        for outputs in feeds.run(path) if uses else ():
            for (weight, use), output in zip(uses, outputs, strict=True):
                vectors = OPERANDS[use.kind].vectors(use.node, torch.from_numpy(output), weight, generator)
                sums[weight.name].add(vectors)
    return {name: each.moments() for name, each in sums.items() if each.count}


def _seen(weight: FoundWeight, use: Use, graph: ir.Graph) -> bool:
    """Whether the weight's matrix, as it is stored, is multiplied by vectors that can be looked at."""
    return (
        use.kind in OPERANDS
        and use.index == 1
        and use.channels == weight.channels
        and (use.kind != "MatMul" or len(weight.tensor.shape) == 2)
        and use.activation is not None
        and use.node.graph is graph
        and OPERANDS[use.kind].views >= {node.op_type for node in use.path}
    )


def _matrix_shape(weight: FoundWeight) -> tuple[int, int]:
    return weight.channels.count(weight.shape), weight.channels.inputs(weight.shape)


def _show(graph: ir.Graph, weight: FoundWeight, use: Use, name: str) -> ir.Value:
    """Return the operator's other operand, as a float32 output of known rank."""
    value, operand = use.activation, OPERANDS[use.kind]
    if operand.as_rows:
        wanted = ir.Value(
            name=label(name, "shape"),
            type=ir.TensorType(ir.DataType.INT64),
            shape=ir.Shape((2,)),
            const_value=ir.tensor(np.array([-1, _matrix_shape(weight)[1]]), name=label(name, "shape")),
        )
        graph.register_initializer(wanted)
        rows = ir.node("Reshape", [value, wanted], name=label(name, "rows"))
        graph.append(rows)
        value = rows.outputs[0]
    output = ir.Value(
        name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([None] * len(weight.tensor.shape))
    )
    graph.append(ir.node("Cast", [value], {"to": ir.DataType.FLOAT}, outputs=[output], name=name))
    return output


@dataclass(frozen=True)
class Operand:
    """How the vectors that a weight is multiplied by are had from the operator's other operand.

    Attributes:
        vectors: (operator, operand as float32, weight, generator) -> [blocks, n, inputs].
        views: nodes that may lie between the stored weight and the operator.
        as_rows: whether the operand is made a matrix [n, inputs] first.
    """

    vectors: Callable[[ir.Node, Tensor, FoundWeight, Generator], Tensor]
    views: frozenset[str]
    as_rows: bool = False


def _matmul(_: ir.Node, rows: Tensor, __: FoundWeight, generator: Generator) -> Tensor:
    return drawn(rows, generator)[None]


def _gemm(gemm: ir.Node, operand: Tensor, _: FoundWeight, generator: Generator) -> Tensor:
    return drawn(operand.T if gemm.attributes.get_int("transA", 0) else operand, generator)[None]


def _conv(conv: ir.Node, x: Tensor, weight: FoundWeight, generator: Generator) -> Tensor:
    kernel = tuple(weight.tensor.shape.numpy())[2:]
    ones = [1] * len(kernel)
    stride = list(conv.attributes.get_ints("strides", ones))
    dilation = list(conv.attributes.get_ints("dilations", ones))
    pads = list(conv.attributes.get_ints("pads", [0] * 2 * len(kernel)))
    how = conv.attributes.get_string("auto_pad", "NOTSET")
    if how.startswith("SAME"):
        pads = _same(tuple(x.shape[2:]), kernel, stride, dilation, upper=how == "SAME_UPPER")
    sides = [side for axis in reversed(range(len(kernel))) for side in (pads[axis], pads[axis + len(kernel)])]
    groups = conv.attributes.get_int("group", 1)
    return patches(functional.pad(x, sides), kernel, stride, dilation, groups, generator)


def _same(
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    *,
    upper: bool,
) -> list[int]:
    """The padding at all starts, then at all ends, with which an output has ceil(size / stride) places."""
    total = [
        max((math.ceil(size / step) - 1) * step + (width - 1) * apart + 1 - size, 0)
        for size, width, step, apart in zip(sizes, kernel, stride, dilation, strict=True)
    ]
    less, more = [each // 2 for each in total], [each - each // 2 for each in total]
    return [*less, *more] if upper else [*more, *less]


OPERANDS: dict[str, Operand] = {
    "Conv": Operand(_conv, frozenset({"Cast", "Identity"})),
    "Gemm": Operand(_gemm, frozenset({"Cast", "Identity", "Transpose"})),
    "MatMul": Operand(_matmul, frozenset({"Cast", "Identity", "Transpose"}), as_rows=True),
}
"""Operator -> where its weight's vectors are. Other operators' weights go to their nearest levels."""
