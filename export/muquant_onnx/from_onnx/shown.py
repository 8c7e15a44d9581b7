"""Values of a graph, and of its branches and loops, as outputs of the graph."""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np
import onnx_ir as ir
from onnx_ir.traversal import RecursiveGraphIterator

from muquant_onnx.format.names import label


class Shown(NamedTuple):
    """A value that the graph outputs.

    Attributes:
        output: float32, of any rank. Of a branch that is not taken it is empty.
        loops: how many of its first axes are the steps of loops.
    """

    output: ir.Value
    loops: int


def holders(model: ir.Model) -> dict[ir.Graph, ir.Node]:
    """Return the node that each branch and each body of a loop belongs to."""
    return {
        attribute.as_graph(): node
        for node in RecursiveGraphIterator(model.graph)
        for attribute in node.attributes.values()
        if attribute.type == ir.AttributeType.GRAPH
    }


def can_show(node: ir.Node, holder: Mapping[ir.Graph, ir.Node]) -> bool:
    """Whether all graphs around `node` are branches or loops; `holder` as `holders` returns it."""
    return all(each.op_type in _SHOWING and not each.domain for each in _around(node, holder))


def show(value: ir.Value, node: ir.Node, holder: Mapping[ir.Graph, ir.Node], name: str) -> Shown:
    """Make a value that `node` uses an output of all graphs around it but the outermost, in place.

    Args:
        value: of any floating-point type.
        node: in any graph of the model, such that `can_show`.
        holder: see `holders`.
        name: of what is made.

    Returns:
        what the outermost graph has to output.
    """
    graph, loops, shown = _graph_of(node), 0, _float(name)
    graph.append(ir.node("Cast", [value], {"to": ir.DataType.FLOAT}, outputs=[shown], name=name))
    for depth, each in enumerate(_around(node, holder)):
        graph.outputs.append(shown)
        loops += _SHOWING[each.op_type]
        for branch in each.attributes.values():
            if each.op_type == "If" and branch.as_graph() is not graph:
                branch.as_graph().outputs.append(_nothing(branch.as_graph(), label(name, f"nothing{depth}")))
        for how in ("scan_output_axes", "scan_output_directions"):
            if how in each.attributes:
                each.attributes[how] = ir.AttrInt64s(how, [*each.attributes[how].as_ints(), 0])
        each.resize_outputs(len(graph.outputs) - (each.op_type == "Loop"))  # whose body says if it goes on
        shown, graph = each.outputs[-1], _graph_of(each)
        shown.name, shown.type = label(name, f"out{depth}"), ir.TensorType(ir.DataType.FLOAT)
    return Shown(shown, loops)


def _around(node: ir.Node, holder: Mapping[ir.Graph, ir.Node]) -> Iterator[ir.Node]:
    while _graph_of(node) in holder:
        node = holder[_graph_of(node)]
        yield node


def _graph_of(node: ir.Node) -> ir.Graph:
    assert isinstance(node.graph, ir.Graph)
    return node.graph


def _nothing(graph: ir.Graph, name: str) -> ir.Value:
    """A value without numbers."""
    output = _float(name)
    graph.append(
        ir.node("Constant", [], {"value": ir.tensor(np.zeros(0, np.float32))}, outputs=[output], name=name)
    )
    return output


def _float(name: str) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT))


_SHOWING = {"If": 0, "Loop": 1, "Scan": 1}
"""Operators with graphs of their own -> how many axes are put in front of what these output."""
