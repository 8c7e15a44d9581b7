"""Constants of a graph that are no weights, and why: floats, and weights that are quantized already."""

from collections.abc import Iterable, Iterator

import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

from muquant_onnx.from_onnx.constants import constant, floats_of
from muquant_onnx.from_onnx.consumers import consumed
from muquant_onnx.from_onnx.report import LeftAlone


def left(value: ir.Value, consumer: str, reason: str) -> LeftAlone:
    """Return the entry of a value that stays as it is, with the bytes of floats that it has in the file."""
    tensor = floats_of(value)
    return LeftAlone(str(value.name), consumer, reason, 0 if tensor is None else tensor.nbytes)


def few_axes(tensor: ir.TensorProtocol) -> str:
    """Return why a tensor of fewer than two axes is no weight."""
    return "it has one axis; a weight has channels and inputs" if len(tensor.shape) else "it is a scalar"


def integers(node: ir.Node) -> ir.Value | None:
    """Return the first input of a node that is a constant of 8 bits or fewer, with two axes or more, which
    only quantized weights are; None where there is none."""
    for value in node.inputs:
        tensor = None if value is None else constant(value)
        if tensor is not None and tensor.dtype in _QUANTIZED and len(tensor.shape) > 1 and tensor.size > 1:
            return value
    return None


def few_bits(model: ir.Model) -> str:
    """Say that the weights of a graph are quantized already; nothing where none are."""
    found = [own for node in RecursiveGraphIterator(model.graph) if (own := integers(node)) is not None]
    weights = list(dict.fromkeys(found))
    if not weights:
        return ""
    tensor = constant(weights[0])
    assert tensor is not None
    return (
        f": {len(weights)} are quantized already, such as {weights[0].name} ({tensor.dtype.name.lower()}); "
        "expected a float model; compress the one that it was made from"
    )


_OTHER = (ir.DataType.UNDEFINED, ir.DataType.BOOL, ir.DataType.STRING)
_QUANTIZED = {kind for kind in ir.DataType if kind not in _OTHER and kind.bitwidth <= 8}


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
