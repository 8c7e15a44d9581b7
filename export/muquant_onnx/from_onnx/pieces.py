"""A graph that is run piece by piece: what lies between two layers, on values that earlier pieces left."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from muquant_onnx.from_onnx.constants import of_constants
from muquant_onnx.from_onnx.opened import opened

Array = NDArray[Any]


class Pieces:
    """Cuts a graph into pieces, in the order in which they are asked for.

    Args:
        model: the graph; it is not changed. What is computed of constants alone is computed in every piece
            that needs it, and never left.
    """

    def __init__(self, model: ir.Model) -> None:
        self._model = model
        self._fixed = {str(value.name) for value in of_constants(model)}
        self._nodes = list(model.graph)
        self._places = {
            str(output.name): place for place, node in enumerate(self._nodes) for output in node.outputs
        }
        self._users: dict[str, set[int]] = {}
        for place, node in enumerate(self._nodes):
            for name in _needed(node):
                self._users.setdefault(name, set()).add(place)
        self._done: set[int] = set()

    def next(self, wanted: str) -> "Piece":
        """Return the piece that computes a value, of what was left and of inputs."""
        new: set[int] = set()
        open_names = [wanted]
        while open_names:
            name = open_names.pop()
            place = self._places.get(name)
            if place is None or place in new or (place in self._done and name not in self._fixed):
                continue
            new.add(place)
            open_names += _needed(self._nodes[place])
        self._done |= {place for place in new if not self._is_fixed(place)}
        nodes = [self._nodes[place] for place in sorted(new)]
        made = {str(output.name) for node in nodes for output in node.outputs} - {""}
        left = [name for name in sorted(made - self._fixed) if name == wanted or self.is_wanted(name)]
        given = sorted({name for node in nodes for name in _needed(node)} - made - self._fixed)
        return Piece(tuple(str(node.outputs[0].name) for node in nodes), tuple(given), tuple(left))

    def is_wanted(self, name: str) -> bool:
        """Whether a piece to come may need a value that was left."""
        return not self._users.get(name, set()) <= self._done

    def _is_fixed(self, place: int) -> bool:
        return all(str(output.name) in self._fixed for output in self._nodes[place].outputs)


@dataclass(frozen=True)
class Piece:
    """Some nodes of a graph.

    Attributes:
        nodes: the name of the first output of each, in order.
        given: names of values that they need.
        left: names of values that they leave.
    """

    nodes: tuple[str, ...]
    given: tuple[str, ...]
    left: tuple[str, ...]

    def open(self, model: ir.Model, example: Mapping[str, Array]) -> ort.InferenceSession:
        """Open these nodes of a model, in which weights and biases may be others.

        Args:
            model: it is not changed.
            example: what is given, for its types.
        """
        wanted = {
            str(node.outputs[0].name): node for node in model.graph if str(node.outputs[0].name) in self.nodes
        }
        values = {
            name: ir.Value(name=name, type=ir.TensorType(ir.DataType.from_numpy(example[name].dtype)))
            for name in self.given
        }
        known: dict[str, ir.Value] = dict(model.graph.initializers)
        own: dict[str, ir.Value] = {}

        def value(name: str) -> ir.Value:
            if name not in values and name in known:
                old = known[name]
                own[name] = ir.Value(name=name, type=old.type, shape=old.shape, const_value=old.const_value)
                values[name] = own[name]
            return values[name]

        nodes = []
        for key in self.nodes:
            node = wanted.get(key)
            if node is None:  # a constant that has other values now
                continue
            for name in _needed(node):
                value(name)
            outputs = [ir.Value(name=each.name, type=each.type, shape=each.shape) for each in node.outputs]
            values |= {str(each.name): each for each in outputs}
            nodes.append(
                ir.Node(
                    node.domain,
                    node.op_type,
                    [None if each is None else value(str(each.name)) for each in node.inputs],
                    list(node.attributes.values()),
                    overload=node.overload,
                    outputs=outputs,
                    name=node.name,
                )
            )
        graph = ir.Graph(
            [values[name] for name in self.given],
            [values[name] for name in self.left],
            nodes=nodes,
            initializers=list(own.values()),
            opset_imports=dict(model.graph.opset_imports),
            name="piece",
        )
        return opened(ir.Model(graph, ir_version=model.ir_version), "unoptimized")


def _needed(node: ir.Node) -> list[str]:
    """Names of the values that a node needs, also inside of its branches and loops."""
    names = [str(value.name) for value in node.inputs if value is not None]
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            graph = attribute.as_graph()
            inner = [name for each in graph for name in _needed(each)]
            inner += [str(each.name) for each in graph.outputs]
            inside = {str(output.name) for each in graph for output in each.outputs}
            inside |= {str(each.name) for each in graph.inputs} | set(graph.initializers)
            names += [name for name in inner if name not in inside]
    return [name for name in dict.fromkeys(names) if name]
