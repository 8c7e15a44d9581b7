"""Find the weights of a graph, each with all its uses, and say of every other float tensor why it is none."""

import os
from collections.abc import Iterator, Set
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

from muquant.base.errors import InputError
from muquant.format.channels import Channels
from muquant.quantization.exact import exact_reason
from muquant_onnx.format.names import weight_names
from muquant_onnx.from_onnx.constants import constant, floats_of, of_constants
from muquant_onnx.from_onnx.consumers import RECURRENT, consumed
from muquant_onnx.from_onnx.floats import FLOATS, fits_float32, stored_array
from muquant_onnx.from_onnx.others import few_axes, few_bits, in_functions, integers, left, others
from muquant_onnx.from_onnx.report import LeftAlone
from muquant_onnx.from_onnx.steps import Step, trace_back, view_through
from muquant_onnx.from_onnx.views import View, finer_channels, stored_channels


@dataclass(frozen=True, eq=False)
class Use:
    """A use of a weight.

    Attributes:
        node: the operator that computes with the weight; its attributes are the geometry.
        index: which of its inputs the weight is.
        kind: the operator's type, a key of `CONSUMERS`.
        path: nodes between the stored weight and the operator (Transpose, Cast ...), the weight's side first;
            where there are several ways, those of one.
        channels: which numbers of the stored weight are one output channel of the operator.
        in_order: whether the operator numbers them alike.
        view: how the operator sees the stored weight.
        seen: which numbers of what it sees are one output channel.
    """

    node: ir.Node
    index: int
    kind: str
    path: tuple[ir.Node, ...]
    channels: Channels
    in_order: bool
    view: View
    seen: Channels

    @property
    def activation(self) -> ir.Value | None:
        """What the weight is applied to: the operator's other operand."""
        return self.node.inputs[0 if self.index else 1]


@dataclass(frozen=True, eq=False)
class FoundWeight:
    """A constant that layers compute with.

    Attributes:
        name: unique in the model, and such that no name that begins with it and a dot is taken.
        value: in the graph; an initializer or the output of a Constant node, of any graph of the model.
        tensor: its content, float32, float16, bfloat16 or double, not empty, of at least two axes, or of one
            that a Reshape cuts.
        uses: by layers, at least one, in the order of the graph.
    """

    name: str
    value: ir.Value
    tensor: ir.TensorProtocol
    uses: tuple[Use, ...]

    @property
    def source(self) -> str:
        """Its name in the file."""
        return str(self.value.name)

    @property
    def shape(self) -> tuple[int, ...]:
        """Its shape in the file."""
        return tuple(self.tensor.shape.numpy())

    @property
    def channels(self) -> Channels:
        """Which of its numbers are one output channel; where uses differ, of the first."""
        return self.uses[0].channels

    @property
    def recurrent(self) -> bool:
        """Whether a layer feeds its error back, step after step."""
        return any(use.kind in RECURRENT and not use.node.domain for use in self.uses)

    @property
    def labels(self) -> tuple[str, ...]:
        """Names that it goes by: its own, and those of the nodes that use it."""
        return (self.name, self.source, *(str(use.node.name or "") for use in self.uses))


class _NoWeightError(Exception):
    """An operand is no weight that can be compressed; the message says why."""


def find_weights(model: ir.Model) -> tuple[list[FoundWeight], list[LeftAlone]]:
    """Return the weights of the main graph and of all branches and loops, in the order of use, and
    what is left alone: operands of layers that are no weights, and all other floating-point constants."""
    uses: dict[ir.Value, list[Use]] = {}
    alone: dict[ir.Value, LeftAlone] = {}
    known = of_constants(model)
    for node in RecursiveGraphIterator(model.graph):
        found, refused = _operands(node, known)
        for value, use in found:
            uses.setdefault(value, []).append(use)
        for value, reason in refused:
            alone.setdefault(value, left(value, node.op_type, reason))
    for value, own in list(uses.items()):
        # a layer comes before what prepares its weight
        own.sort(key=lambda use: use.node.outputs[0] in known)
        exact = _exact(_tensor(value))
        if exact is not None:
            alone[value] = left(value, own[0].kind, exact)
            del uses[value]
    for value, other in others(model):
        alone.setdefault(value, other)
    names = weight_names([str(value.name) for value in uses], _taken(model))
    weights = [
        FoundWeight(name, value, _tensor(value), tuple(own))
        for name, (value, own) in zip(names, uses.items(), strict=True)
    ]
    in_graphs = [entry for value, entry in alone.items() if value not in uses]
    return weights, [*in_graphs, *in_functions(model)]


def _tensor(value: ir.Value) -> ir.TensorProtocol:
    tensor = constant(value)
    assert tensor is not None
    return tensor


def require_weights(
    model: ir.Model, source: str | os.PathLike[str]
) -> tuple[list[FoundWeight], list[LeftAlone]]:
    """`find_weights`, but at least one.

    Raises:
        InputError: there is none; `source` is named.
    """
    found, left_alone = find_weights(model)
    if not found:
        raise InputError(
            f"{source} holds no weight to compress{few_bits(model) or _first_reason(left_alone)}"
        )
    return found, left_alone


def _first_reason(left_alone: list[LeftAlone]) -> str:
    if not left_alone:
        return "; expected constants that MatMul, Gemm, Conv, ConvTranspose or Gather computes with"
    first = left_alone[0]
    return f"; {len(left_alone)} are left alone, such as {first.name} ({first.consumer}): {first.reason}"


def _operands(
    node: ir.Node, known: Set[ir.Value]
) -> tuple[list[tuple[ir.Value, Use]], list[tuple[ir.Value, str]]]:
    """Return the weights that `node` computes with, and what stands in their place, with reasons; `known` are
    the values that are computed of constants alone."""
    weights, refused, computed = [], [], []
    for index in consumed(node):
        operand = node.inputs[index] if index < len(node.inputs) else None
        if operand is None:
            continue
        if operand not in known:
            computed.append(_computed(operand))
            continue
        for stored, path in trace_back(operand):
            tensor = constant(stored)
            if tensor is None:
                computed.append(_computed(stored))
                continue
            try:
                weights.append((stored, _use(node, index, stored, tensor, path)))
            except _NoWeightError as why:
                refused.append((stored, str(why)))
    if node.op_type.startswith("Gather"):  # it also picks from activations, and from shapes
        return weights, [(value, why) for value, why in refused if floats_of(value) is not None]
    return weights, refused or ([] if weights else computed[:1])


def _computed(value: ir.Value) -> tuple[ir.Value, str]:
    """Return what `value` is, in another shape or order, and why it is no constant."""
    producer = value.producer()
    while producer is not None and not producer.domain and producer.op_type in _MOVING:
        moved = producer.inputs[0]
        if moved is None or constant(moved) is not None:
            return moved or value, f"{producer.op_type} gives it a shape that is computed from inputs"
        value, producer = moved, moved.producer()
    if producer is None:
        return value, "it is not a constant: it is an input"
    own = integers(producer)
    if own is not None and producer.op_type == "DequantizeLinear":
        return value, f"it is quantized already, as {own.name}"
    return value, f"it is not a constant: {producer.op_type} computes it"


_MOVING = {"Cast", "Identity", "Reshape", "Transpose"}


def _use(
    node: ir.Node, index: int, stored: ir.Value, tensor: ir.TensorProtocol, path: tuple[Step, ...]
) -> Use:
    """Return the use of the constant `stored` by `node`, or raise where it is no weight to compress."""
    shape = tuple(tensor.shape.numpy())
    if stored.is_graph_input():
        raise _NoWeightError(
            "it is an input of the graph too, which callers may set; remove it from the inputs to compress it"
        )
    if stored.is_graph_output():
        raise _NoWeightError("it is an output of its graph too")
    if tensor.dtype not in FLOATS:
        raise _NoWeightError(
            f"its type is {tensor.dtype.name.lower()}, not float, double, float16 or bfloat16"
        )
    if not tensor.size:
        raise _NoWeightError(f"it is empty: its shape is {shape}")
    if len(shape) < (1 if path else 2):
        raise _NoWeightError(few_axes(tensor))
    view, between = view_through(shape, path), " and ".join(dict.fromkeys(step.node.op_type for step in path))
    if view is None or len(view.sizes) < 2:
        raise _NoWeightError(f"{between} make another tensor of it")
    seen = consumed(node)[index](node, view.sizes)
    if seen is None:
        raise _NoWeightError(f"{node.op_type} does not take it by its rows")
    found = stored_channels(view, seen, shape) or finer_channels(view, seen, shape)
    if found is None or (len(shape) < 2 and found.channels.inputs(shape) < 2):
        parts = f"{between} makes its channels of parts of its axes"
        raise _NoWeightError(few_axes(tensor) if len(shape) < 2 else parts)
    return Use(node, index, node.op_type, tuple(step.node for step in path), *found, view, seen)


def _exact(tensor: ir.TensorProtocol) -> str | None:
    """Return why the numbers of a tensor have to stay as they are, if they do."""
    values = stored_array(tensor)
    if tensor.dtype == ir.DataType.DOUBLE and not fits_float32(values):
        return "it holds numbers beyond those of float32"
    return exact_reason(values)


def _taken(model: ir.Model) -> Iterator[str]:
    """Yield the name of every value of all graphs."""
    for graph in model.graphs():
        for value in (*graph.inputs, *graph.initializers.values()):
            yield str(value.name)
        for node in graph:
            yield from (str(output.name) for output in node.outputs)
