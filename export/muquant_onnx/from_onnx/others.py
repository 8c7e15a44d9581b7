"""Floating-point constants of a graph that are no weights, and why."""

from collections.abc import Iterable, Iterator

import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

from muquant_onnx.from_onnx.constants import floats_of
from muquant_onnx.from_onnx.consumers import consumed
from muquant_onnx.from_onnx.report import LeftAlone


def left(value: ir.Value, consumer: str, reason: str) -> LeftAlone:
    """Return the entry of a value that stays as it is, with the bytes of floats that it has in the file."""
    tensor = floats_of(value)
    return LeftAlone(str(value.name), consumer, reason, 0 if tensor is None else tensor.nbytes)


def few_axes(tensor: ir.TensorProtocol) -> str:
    """Return why a tensor of fewer than two axes is no weight."""
    return "it has one axis; a weight has channels and inputs" if len(tensor.shape) else "it is a scalar"


def others(model: ir.Model) -> Iterator[tuple[ir.Value, LeftAlone]]:
    """Yield the floating-point constants of all graphs, each with why it would not be a weight."""
    for value, tensor in _constants(model.graphs()):
        consumer = next(iter(value.consumers()), None)
        kind = "" if consumer is None else consumer.op_type
        if consumer is None:
            reason = "it is an output of its graph" if value.is_graph_output() else "nothing uses it"
        elif len(tensor.shape) < 2:
            reason = few_axes(tensor)
        elif consumed(consumer):
            reason = f"{kind} computes with it, but not as its weight"
        else:
            reason = f"no layer computes with it; {kind} does"
        yield value, LeftAlone(str(value.name), kind, reason, tensor.nbytes)


def in_functions(model: ir.Model) -> Iterator[LeftAlone]:
    """Yield the floating-point constants of functions of the model that are not inlined."""
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    called = {node.op_identifier() for graph in graphs for node in RecursiveGraphIterator(graph)}
    for key, function in model.functions.items():
        why = "cannot be inlined" if key in called else "nothing calls"
        for value, tensor in _constants([function.graph, *function.subgraphs()]):
            name, reason = f"{function.name}.{value.name}", f"it belongs to a function that {why}"
            yield LeftAlone(name, function.name, reason, tensor.nbytes)


def _constants(graphs: Iterable[ir.Graph]) -> Iterator[tuple[ir.Value, ir.TensorProtocol]]:
    """Yield the floating-point constants of `graphs`."""
    for graph in graphs:
        produced = (node.outputs[0] for node in graph if node.op_type == "Constant")
        for value in (*graph.initializers.values(), *produced):
            tensor = floats_of(value)
            if tensor is not None:
                yield value, tensor
