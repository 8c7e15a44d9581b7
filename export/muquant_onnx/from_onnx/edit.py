"""Put packed weights into a graph in the place of float ones."""

from collections.abc import Sequence

import onnx_ir as ir
from torch import Tensor

from muquant_onnx.format.names import label
from muquant_onnx.format.packed_weight import PackedWeight
from muquant_onnx.from_onnx.find import FoundWeight
from muquant_onnx.from_onnx.floats import float_tensor
from muquant_onnx.lowering.lower import Served
from muquant_onnx.lowering.targets import Target, lower_for

SMALLEST_IR = 10
"""The IR version that FORMAT.md states; functions need 8."""


def replace_weights(
    model: ir.Model, weights: Sequence[tuple[FoundWeight, PackedWeight]], target: Target
) -> list[Served]:
    """Serve all uses of `weights` from packed codes, in place, and remove the float tensors.

    The file's opset is kept, because the decoder is the same in all that are accepted: a conversion would
    change operators that are none of our business.
    """
    for found, _ in weights:
        _skip_identities(found.value)
    model.ir_version = max(model.ir_version, SMALLEST_IR)
    served = lower_for(model, {found.value: (found.name, packed) for found, packed in weights}, target)
    for found, _ in weights:
        _remove(found.value)
    return served


def put_values(weight: FoundWeight, values: Tensor) -> None:
    """Give all uses of a weight other values, float32 of its shape, in its type."""
    dtype, old = ir.DataType(weight.tensor.dtype), weight.value
    node = old.producer()
    graph = old.graph if node is None else node.graph
    assert isinstance(graph, ir.Graph)
    name = label(weight.name, "values")
    tensor = float_tensor(values, dtype, name)
    new = ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(values.shape), const_value=tensor)
    graph.register_initializer(new)
    ir.convenience.replace_all_uses_with(old, new)
    _remove(old)


def _skip_identities(value: ir.Value) -> None:
    """Let what uses `value` through Identity nodes use it directly: the int8 forms look at consumers."""
    for node, _ in list(value.uses()):
        output = node.outputs[0]
        if (node.domain, node.op_type) == ("", "Identity") and not output.is_graph_output():
            ir.convenience.replace_all_uses_with(output, value)
            assert node.graph is not None
            node.graph.remove(node, safe=True)
            _skip_identities(value)


def _remove(value: ir.Value) -> None:
    """Remove an initializer or Constant node that nothing uses any more."""
    node, graph = value.producer(), value.graph
    if node is not None:
        assert node.graph is not None
        node.graph.remove(node, safe=True)
    elif graph is not None:
        graph.initializers.pop(str(value.name), None)
