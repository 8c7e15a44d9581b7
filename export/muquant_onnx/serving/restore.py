"""Undo what `lower` did to a graph, as far as a policy may want it otherwise."""

from collections.abc import Mapping

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from muquant_onnx.packed_weight import PackedWeight
from muquant_onnx.serving.decoders import Root, UnknownFormError, decoders, roots
from muquant_onnx.weight_store import stand_in


def restore(model: ir.Model, weights: Mapping[str, PackedWeight]) -> dict[ir.Value, tuple[str, PackedWeight]]:
    """Let each weight that is decoded be one value again, which nothing computes yet, in place.

    Returns:
        these values, in the weights' shapes and the types of their consumers, with the weights' names; as
        `lower` takes them. A weight that something unknown uses is not among them and stays decoded as it is.
    """
    found: dict[str, list[Root]] = {}
    unknown = set()
    for name, levels in decoders(model.graph):
        try:
            found.setdefault(name, []).extend(roots(levels))
        except UnknownFormError:
            unknown.add(name)
    values = {}
    for name in found.keys() & weights.keys() - unknown:
        dtype = next((root.value.dtype for root in found[name] if root.kind == "weight"), None)
        packed = weights[name].of_type(dtype or ir.DataType.FLOAT)
        value = ir.Value(
            name=f"{name}.weight", type=ir.TensorType(packed.dtype), shape=ir.Shape(packed.shape)
        )
        values[value] = (name, packed)
        for root in found[name]:
            _put_back(model.graph, root, value)
    RemoveUnusedNodesPass()(model)
    return values


def _put_back(graph: ir.Graph, root: Root, weight: ir.Value) -> None:
    """Let `root` be made of the float weight."""
    if root.kind == "weight" or (root.kind == "matrix" and not root.transposed):
        ir.convenience.replace_all_uses_with(root.value, weight)
        return
    output = ir.Value(name=f"{root.value.name}.restored", type=root.value.type, shape=root.value.shape)
    if root.kind == "matrix":
        node = ir.node("Transpose", [weight], {"perm": [1, 0]}, outputs=[output])
    else:
        node = ir.node("Gather", [weight, root.consumer.inputs[1]], {"axis": 0}, outputs=[output])
    graph.insert_before(_producer(root.value), node)
    stand_in(root.value, output)


def _producer(value: ir.Value) -> ir.Node:
    node = value.producer()
    assert node is not None
    return node
