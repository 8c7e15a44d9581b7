"""Constants of a graph, and what is computed of constants alone."""

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator
from onnx_ir.traversal import RecursiveGraphIterator

_RANDOM = {
    "Bernoulli",
    "Multinomial",
    "RandomNormal",
    "RandomNormalLike",
    "RandomUniform",
    "RandomUniformLike",
}
_FEW = 1024
"""Numbers that a shape, or a list of axes, may have."""
DEEPEST = 100
"""Operators behind each other that are looked through."""


def constant(value: ir.Value) -> ir.TensorProtocol | None:
    """Return the tensor of an initializer or of a Constant node's output; None for anything else."""
    node = value.producer()
    if node is None:
        return value.const_value
    if (node.domain, node.op_type) == ("", "Constant") and "value" in node.attributes:
        return node.attributes["value"].as_tensor()
    return None


def floats_of(value: ir.Value) -> ir.TensorProtocol | None:
    """Return the tensor of a constant of any floating-point type, those that cannot be compressed included;
    None for anything else."""
    node = value.producer()
    if node is not None and (node.domain, node.op_type) == ("", "Constant"):
        for attribute in (node.attributes.get("value_float"), node.attributes.get("value_floats")):
            if attribute is not None:
                return ir.tensor(attribute.value, ir.DataType.FLOAT)
    tensor = constant(value)
    return tensor if tensor is not None and tensor.dtype.is_floating_point() else None


def of_constants(model: ir.Model) -> set[ir.Value]:
    """Return the values of all graphs that standard operators compute of constants alone, and these.

    Constants that callers may set are among them.
    """
    known = {value for graph in model.graphs() for value in graph.initializers.values()}
    for node in RecursiveGraphIterator(model.graph):
        if (
            node.domain
            or node.op_type in _RANDOM
            or any(_is_graph(each) for each in node.attributes.values())
        ):
            continue
        given = [value for value in node.inputs if value is not None]
        if (given or node.op_type == "Constant") and all(value in known for value in given):
            known.update(node.outputs)
    return known


def _is_graph(attribute: ir.Attr) -> bool:
    return attribute.type in (ir.AttributeType.GRAPH, ir.AttributeType.GRAPHS)


def whole_numbers(value: ir.Value | None) -> NDArray[np.int64] | None:
    """Return the integers that a value is, where it is few of them, and computed of few constants alone."""
    if value is None:
        return None
    tensor = constant(value)
    if tensor is not None:
        return tensor.numpy().astype(np.int64) if tensor.dtype.is_integer() and tensor.size <= _FEW else None
    nodes: dict[ir.Node, None] = {}
    tensors: dict[str, ir.TensorProtocol] = {}
    if not _collect(value, nodes, tensors):
        return None
    made = onnx.helper.make_graph(
        [ir.to_proto(node) for node in nodes],
        "numbers",
        [],
        [onnx.helper.make_empty_tensor_value_info(str(value.name))],
        [onnx.numpy_helper.from_array(tensor.numpy(), name) for name, tensor in tensors.items()],
    )
    opset = 13 if value.graph is None else value.graph.opset_imports.get("", 13)
    try:
        (found,) = ReferenceEvaluator(_model(made, opset)).run(None, {})
        return np.asarray(found).astype(np.int64, casting="safe")
    except Exception:  # what the reference does not compute is not known
        return None


def _model(graph: onnx.GraphProto, opset: int) -> onnx.ModelProto:
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", opset)])


def _collect(
    value: ir.Value, nodes: dict[ir.Node, None], tensors: dict[str, ir.TensorProtocol], depth: int = 0
) -> bool:
    """Collect what computes `value`, in order; whether that is a few standard nodes and numbers."""
    tensor, node = constant(value), value.producer()
    if tensor is not None:
        tensors[str(value.name)] = tensor
        return tensor.size <= _FEW and not value.is_graph_input()
    if node is None or node.domain or node.op_type in _RANDOM or depth > DEEPEST:
        return False
    if node not in nodes:
        given = [value for value in node.inputs if value is not None]
        if not given or not all(_collect(each, nodes, tensors, depth + 1) for each in given):
            return False
        nodes[node] = None
    return True
