"""Undo what `lower` did to a graph, as far as a policy may want it otherwise."""

from collections.abc import Mapping, Set

import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from muquant_onnx.format.names import label, owners, parse_label
from muquant_onnx.format.packed_weight import PackedWeight
from muquant_onnx.lowering.store import stand_in
from muquant_onnx.serving.decoders import Root, UnknownFormError, decodings, roots
from muquant_onnx.serving.proof import Proof


def restore(
    model: ir.Model, weights: Mapping[str, PackedWeight], proof: Proof
) -> dict[ir.Value, tuple[str, PackedWeight]]:
    """Let each weight that is decoded be one value again, which nothing computes yet, in place.

    Args:
        model: that holds them.
        weights: by name.
        proof: of the model.

    Returns:
        these values, in the weights' shapes and the types of their consumers, with the weights' names; as
        `lower` takes them. A weight that something unknown uses is not among them, and neither is one whose
        product got other nodes besides (places), or that lends its name to an input or output: they stay
        decoded as they are.
    """
    found: dict[str, list[Root]] = {}
    kept = {owner for end in (*model.graph.inputs, *model.graph.outputs) for owner in owners(str(end.name))}
    kept.update(proof.doubts)
    for decoding in decodings(model.graph):
        try:
            made = list(roots(decoding.levels))
            found.setdefault(decoding.weight, []).extend(made)
            if not all(_is_proven(proof, decoding.weight, root) for root in made):
                kept.add(decoding.weight)
        except UnknownFormError:
            kept.add(decoding.weight)
        if decoding.places:
            kept.add(decoding.weight)
    values = {}
    for name in [name for name in weights if name in found and name not in kept]:
        dtype = next((_dtype(root) for root in found[name] if root.kind == "weight"), None)
        packed = weights[name].of_type(dtype or ir.DataType.FLOAT)
        value = ir.Value(
            name=label(name, "weight"), type=ir.TensorType(packed.dtype), shape=ir.Shape(packed.shape)
        )
        values[value] = (name, packed)
        for root in found[name]:
            _put_back(model.graph, root, value)
    RemoveUnusedNodesPass()(model)
    _free_names(model.graph, {name for name, _ in values.values()})
    return values


def _is_proven(proof: Proof, weight: str, root: Root) -> bool:
    """Whether a root is what it seems to be, and can be taken out of the graph."""
    value, indices = str(root.value.name), root.consumer.inputs[1]
    if root.kind == "rows":
        return indices is not None and proof.is_rows(weight, value, str(indices.name))
    named = parse_label(value)
    ours = named is not None and named.weight == weight and value in proof.trusted
    return ours and not root.value.is_graph_output()


def _dtype(root: Root) -> ir.DataType:
    """What a root that is the whole weight is rounded to."""
    node = _producer(root.value)
    return ir.DataType(node.attributes.get_int("to", ir.DataType.FLOAT))


def _free_names(graph: ir.Graph, weights: Set[str]) -> None:
    """Rename what is left of parts of `weights`, such as the sum with a bias: `lower` names its own."""

    def is_part(name: str | None) -> bool:
        return any(owner in weights for owner in owners(str(name)))

    for node in graph:
        if is_part(node.name):
            node.name = label(str(node.name), "before")
        for output in node.outputs:
            if is_part(output.name) and not output.is_graph_output():
                output.name = label(str(output.name), "before")
    for value in list(graph.initializers.values()):
        if is_part(value.name) and not value.is_graph_input():
            graph.initializers.pop(str(value.name))
            value.name = label(str(value.name), "before")
            if value.const_value is not None:
                value.const_value.name = value.name
            graph.register_initializer(value)


def _put_back(graph: ir.Graph, root: Root, weight: ir.Value) -> None:
    """Let `root` be made of the float weight."""
    if root.kind == "weight" or (root.kind == "matrix" and not root.transposed):
        ir.convenience.replace_all_uses_with(root.value, weight)
        return
    output = ir.Value(
        name=label(str(root.value.name), "restored"), type=root.value.type, shape=root.value.shape
    )
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
