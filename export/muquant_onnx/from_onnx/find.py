"""Find the weights of a graph, each with all its uses, and say of every other float tensor why it is none."""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

from muquant.base.errors import InputError
from muquant.format.channels import Channels
from muquant_onnx.format.names import weight_names
from muquant_onnx.from_onnx.constants import constant, stored_channels, trace_back, view_through
from muquant_onnx.from_onnx.consumers import CONSUMERS, RECURRENT
from muquant_onnx.from_onnx.floats import FLOATS
from muquant_onnx.from_onnx.report import LeftAlone


@dataclass(frozen=True, eq=False)
class Use:
    """A use of a weight.

    Attributes:
        node: the operator that computes with the weight; its attributes are the geometry.
        index: which of its inputs the weight is.
        kind: the operator's type, a key of `CONSUMERS`.
        path: nodes between the stored weight and the operator (Transpose, Cast ...), the weight's side first.
        channels: which numbers of the stored weight are one output channel of the operator.
        in_order: whether the operator numbers them alike.
    """

    node: ir.Node
    index: int
    kind: str
    path: tuple[ir.Node, ...]
    channels: Channels
    in_order: bool

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
        tensor: its content, float32, float16 or bfloat16, of at least two axes, not empty.
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
    def labels(self) -> tuple[str, ...]:
        """Names that it goes by: its own, and those of the nodes that use it."""
        return (self.name, self.source, *(str(use.node.name or "") for use in self.uses))


class _NoWeightError(Exception):
    """An operand is no weight that can be compressed; the message says why."""


def find_weights(model: ir.Model) -> tuple[list[FoundWeight], list[LeftAlone]]:
    """Return the weights of the main graph and of all branches and loops, in the order of use, and
    what is left alone: operands of layers that are no weights, and all other floating-point constants."""
    uses: dict[ir.Value, list[Use]] = {}
    left: dict[ir.Value, LeftAlone] = {}
    for node in RecursiveGraphIterator(model.graph):
        found, refused = _operands(node)
        for value, use in found:
            uses.setdefault(value, []).append(use)
        for value, reason in refused:
            left.setdefault(value, LeftAlone(str(value.name), node.op_type, reason, _nbytes(value)))
    for value, other in _others(model):
        left.setdefault(value, other)
    names = weight_names([str(value.name) for value in uses], _taken(model))
    weights = []
    for name, (value, own) in zip(names, uses.items(), strict=True):
        tensor = constant(value)
        assert tensor is not None
        weights.append(FoundWeight(name, value, tensor, tuple(own)))
    return weights, [*(left[value] for value in left if value not in uses), *_in_functions(model)]


def require_weights(
    model: ir.Model, source: str | os.PathLike[str]
) -> tuple[list[FoundWeight], list[LeftAlone]]:
    """`find_weights`, but at least one.

    Raises:
        InputError: there is none; `source` is named.
    """
    found, left_alone = find_weights(model)
    if not found:
        raise InputError(f"{source} holds no weight to compress{_first_reason(left_alone)}")
    return found, left_alone


def _first_reason(left_alone: list[LeftAlone]) -> str:
    if not left_alone:
        return "; expected constants that MatMul, Gemm, Conv, ConvTranspose or Gather computes with"
    first = left_alone[0]
    return f"; {len(left_alone)} are left alone, such as {first.name} ({first.consumer}): {first.reason}"


def _operands(node: ir.Node) -> tuple[list[tuple[ir.Value, Use]], list[tuple[ir.Value, str]]]:
    """Return the weights that `node` computes with, and what stands in their place, with reasons."""
    weights, refused, computed = [], [], []
    for index in CONSUMERS.get(node.op_type, ()) if not node.domain else ():
        operand = node.inputs[index] if index < len(node.inputs) else None
        if operand is None:
            continue
        stored, path = trace_back(operand)
        tensor = constant(stored)
        if tensor is None:
            producer = stored.producer()
            whence = f"{producer.op_type} computes it" if producer else "it is an input"
            computed.append((stored, f"it is not a constant: {whence}"))
            continue
        try:
            weights.append((stored, _use(node, index, stored, tensor, path)))
        except _NoWeightError as why:
            refused.append((stored, str(why)))
    if node.op_type == "Gather":  # it also picks from activations, and from shapes
        return weights, [(value, why) for value, why in refused if _floats(value) is not None]
    return weights, refused or ([] if weights else computed[:1])


def _use(
    node: ir.Node, index: int, stored: ir.Value, tensor: ir.TensorProtocol, path: tuple[ir.Node, ...]
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
        raise _NoWeightError(f"its type is {tensor.dtype.name.lower()}, not float, float16 or bfloat16")
    if not tensor.size:
        raise _NoWeightError(f"it is empty: its shape is {shape}")
    if len(shape) < 2:
        raise _NoWeightError(_few_axes(tensor))
    view = view_through(shape, path)
    if view is None or len(view.sizes) < 2:
        raise _NoWeightError(f"{' and '.join(step.op_type for step in path)} make another tensor of it")
    seen = CONSUMERS[node.op_type][index](node, view.sizes)
    if seen is None:
        raise _NoWeightError(f"{node.op_type} does not take it by its rows")
    found = stored_channels(view, seen, shape)
    if found is None:
        raise _NoWeightError("Reshape makes its channels of parts of its axes")
    return Use(node, index, node.op_type, path, *found)


def _few_axes(tensor: ir.TensorProtocol) -> str:
    """Return why a tensor of fewer than two axes is no weight."""
    return "it has one axis; a weight has channels and inputs" if len(tensor.shape) else "it is a scalar"


def _floats(value: ir.Value) -> ir.TensorProtocol | None:
    """Return the tensor of a constant of any floating-point type, those that cannot be compressed included;
    None for anything else."""
    node = value.producer()
    if node is not None and (node.domain, node.op_type) == ("", "Constant"):
        for attribute in (node.attributes.get("value_float"), node.attributes.get("value_floats")):
            if attribute is not None:
                return ir.tensor(attribute.value, ir.DataType.FLOAT)
    tensor = constant(value)
    return tensor if tensor is not None and tensor.dtype.is_floating_point() else None


def _nbytes(value: ir.Value) -> int:
    """Return the bytes of the floating-point numbers that `value` has in the file."""
    tensor = _floats(value)
    return 0 if tensor is None else tensor.nbytes


def _others(model: ir.Model) -> Iterator[tuple[ir.Value, LeftAlone]]:
    """Yield the floating-point constants of all graphs, each with why it would not be a weight."""
    for value, tensor in _constants(model.graphs()):
        consumer, index = next(iter(value.uses()), (None, 0))
        kind = "" if consumer is None else consumer.op_type
        if consumer is None:
            reason = "it is an output of its graph" if value.is_graph_output() else "nothing uses it"
        elif index in RECURRENT.get(kind, ()) and not consumer.domain:
            reason = "a recurrent weight"
        elif len(tensor.shape) < 2:
            reason = _few_axes(tensor)
        else:
            reason = f"no layer computes with it; {kind} does"
        yield value, LeftAlone(str(value.name), kind, reason, tensor.nbytes)


def _in_functions(model: ir.Model) -> Iterator[LeftAlone]:
    """Yield the floating-point constants of functions of the model."""
    for function in model.functions.values():
        for value, tensor in _constants([function.graph, *function.subgraphs()]):
            name, reason = f"{function.name}.{value.name}", "it belongs to a function of the model"
            yield LeftAlone(name, function.name, reason, tensor.nbytes)


def _constants(graphs: Iterable[ir.Graph]) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """Yield the floating-point constants of `graphs`."""
    for graph in graphs:
        produced = (node.outputs[0] for node in graph if node.op_type == "Constant")
        for value in (*graph.initializers.values(), *produced):
            tensor = _floats(value)
            if tensor is not None:
                yield value, tensor


def _taken(model: ir.Model) -> Iterator[str]:
    """Yield the name of every value of all graphs."""
    for graph in model.graphs():
        for value in (*graph.inputs, *graph.initializers.values()):
            yield str(value.name)
        for node in graph:
            yield from (str(output.name) for output in node.outputs)
