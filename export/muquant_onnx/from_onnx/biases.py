"""Biases of a graph's layers: where one is added, and how to change it."""

from dataclasses import dataclass

import onnx_ir as ir
from torch import Tensor

from muquant_onnx.format.names import label
from muquant_onnx.from_onnx.constants import constant
from muquant_onnx.from_onnx.find import FoundWeight
from muquant_onnx.from_onnx.floats import FLOATS, float_tensor, read_float

_PLACES = {"Conv": 2, "ConvTranspose": 2, "FusedConv": 2, "FusedGemm": 2, "Gemm": 2}
"""Operator -> the input that is its bias, which may be left out."""


@dataclass(frozen=True, eq=False)
class Bias:
    """Where the bias of one layer is added.

    Attributes:
        node: the layer's operator, or the Add behind it.
        index: of the input that is the bias.
        tensor: its values, one for each channel; None where there is none yet.
    """

    node: ir.Node
    index: int
    tensor: ir.TensorProtocol | None

    def shift(self, shift: Tensor, weight: FoundWeight) -> None:
        """Add float32 [channels] to the bias of the layer of `weight`, in place."""
        graph, index = self.node.graph, self.index
        assert isinstance(graph, ir.Graph)
        dtype, values = weight.tensor.dtype, shift
        if self.tensor is not None:
            dtype, old = self.tensor.dtype, read_float(self.tensor)
            values = old + shift.reshape(old.shape)
        name = label(weight.name, "bias")
        new = ir.Value(
            name=name,
            type=ir.TensorType(dtype),
            shape=ir.Shape(values.shape),
            const_value=float_tensor(values, dtype, name),
        )
        graph.register_initializer(new)
        if index >= len(self.node.inputs):
            self.node.resize_inputs(index + 1)
        before = self.node.inputs[index]
        self.node.replace_input_with(index, new)
        if before is not None and not before.uses() and before.is_initializer():
            graph.initializers.pop(str(before.name))


def find_bias(weight: FoundWeight, graph: ir.Graph) -> Bias | None:
    """Return the bias of the only layer that uses `weight`, if it has one or can be given one, in `graph`."""
    use, channels = weight.uses[0], weight.channels.count(weight.shape)
    if len(weight.uses) > 1 or use.index != 1 or use.node.graph is not graph:
        return None
    if not use.in_order:
        return None
    node = use.node
    if use.kind == "MatMul":
        return None if use.seen.axis is None else _added(node.outputs[0], channels)
    place = _PLACES.get(use.kind)
    scales = (node.attributes.get_float(name, 1.0) for name in ("alpha", "beta"))
    if place is None or any(scale != 1 for scale in scales):
        return None
    return _bias(node, place, channels)


def _added(product: ir.Value, channels: int) -> Bias | None:
    """The bias that an Add gives to a product, if nothing else uses that."""
    uses = list(product.uses())
    if len(uses) != 1 or product.is_graph_output():
        return None
    node, index = uses[0]
    if (node.domain, node.op_type) != ("", "Add") or node.graph is not product.producer().graph:  # type: ignore[union-attr]
        return None
    return None if node.inputs[1 - index] is None else _bias(node, 1 - index, channels)


def _bias(node: ir.Node, index: int, channels: int) -> Bias | None:
    value = node.inputs[index] if index < len(node.inputs) else None
    if value is None:
        return Bias(node, index, None)
    tensor = None if value.is_graph_input() or value.is_graph_output() else constant(value)
    if tensor is None or tensor.dtype not in FLOATS:
        return None
    shape = tuple(tensor.shape.numpy())
    if not shape or shape[-1] != channels or tensor.size != channels:
        return None
    return Bias(node, index, tensor)
