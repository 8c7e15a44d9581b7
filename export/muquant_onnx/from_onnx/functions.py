"""Functions of a model, written out where they are called: weights are found inside them, and behind them."""

from collections.abc import Iterator
from contextlib import suppress

import onnx
import onnx_ir as ir
from onnx.inliner import inline_local_functions
from onnx_ir.passes.common import InlinePass


def with_functions_inlined(proto: onnx.ModelProto) -> ir.Model:
    """Return the model, each call of its functions replaced by what the function does.

    Functions that nothing calls stay, and all of them where a call cannot be replaced: where one is given a
    graph, or is of an opset that cannot be converted.
    """
    model = ir.from_proto(proto)
    if not model.functions:
        return model
    for inline in (_by_ir, _by_onnx):
        with suppress(Exception):  # neither has errors of its own
            model = inline(proto)
            break
    _share_constants(model)
    return model


def _by_ir(proto: onnx.ModelProto) -> ir.Model:
    model = ir.from_proto(proto)
    return InlinePass()(model).model


def _by_onnx(proto: onnx.ModelProto) -> ir.Model:
    """For functions of another opset than the model's."""
    return ir.from_proto(inline_local_functions(proto, convert_version=True))


def _share_constants(model: ir.Model) -> None:
    """Let constants of a function that was called several times be one, as they were, an initializer."""
    alike: dict[int, list[ir.Node]] = {}
    for node, tensor in _constants(model):
        alike.setdefault(id(tensor), []).append(node)
    for nodes in alike.values():
        if len(nodes) < 2:
            continue
        output, tensor = nodes[0].outputs[0], nodes[0].attributes["value"].as_tensor()
        shared = ir.Value(
            name=output.name,
            type=ir.TensorType(tensor.dtype),
            shape=ir.Shape(tensor.shape.numpy()),
            const_value=tensor,
        )
        for node in nodes:
            if node.outputs[0].is_graph_output():
                continue
            ir.convenience.replace_all_uses_with(node.outputs[0], shared)
            assert node.graph is not None
            node.graph.remove(node, safe=True)
        if shared.uses():
            if output.is_graph_output():
                shared.name = f"{output.name}_shared"
            model.graph.register_initializer(shared)


def _constants(model: ir.Model) -> Iterator[tuple[ir.Node, ir.TensorProtocol]]:
    for graph in model.graphs():
        for node in graph:
            if (node.domain, node.op_type) == ("", "Constant") and "value" in node.attributes:
                yield node, node.attributes["value"].as_tensor()
