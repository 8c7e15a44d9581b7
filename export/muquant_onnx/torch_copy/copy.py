"""A graph as a PyTorch module: run node by node, its constants parameters."""

from collections.abc import Collection, Iterator, Set
from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from onnx_ir.traversal import RecursiveGraphIterator
from torch import Tensor, nn

from muquant.base.errors import InputError, first_line, naming
from muquant_onnx.torch_copy.operator import Result, dtype_of
from muquant_onnx.torch_copy.registry import OPERATORS, name_of

Known = dict[ir.Value, Tensor]
"""The values that are known so far."""
_BUILT_IN = {"Constant", "If"}


class TorchCopy(nn.Module):
    """The graph of a model, called with its inputs by name; returns its outputs by name.

    All floating-point numbers are float32. Floating-point constants are parameters, see `path`, of which
    none is trained unless the caller says so. A value is let go after its last use. Branches are taken as
    their conditions say.

    Args:
        model: of opset 13 or later, functions inlined, nodes in order.

    Raises:
        InputError: it has operators without a translation, all of which are named, or constants that are no
            numbers.
    """

    def __init__(self, model: ir.Model) -> None:
        super().__init__()
        nodes = [name_of(node) for node in RecursiveGraphIterator(model.graph)]
        if missing := sorted({*nodes} - {*OPERATORS} - _BUILT_IN):
            raise InputError(f"{', '.join(missing)}: no translation to torch")
        self._whole: Known = {}
        self._places: dict[ir.Value, int] = {}
        self.constants = nn.ParameterList()
        for value, tensor in _constants(model):
            if tensor.is_floating_point():
                self._places[value] = len(self.constants)
                self.constants.append(nn.Parameter(tensor, requires_grad=False))
            else:
                self._whole[value] = tensor
        constant = self._places.keys() | self._whole.keys()
        self._inputs = {str(value.name): value for value in model.graph.inputs if value not in constant}
        self.body = _Body(model.graph, constant)
        self._paths: dict[ir.Node, str] = {
            module.node: path for path, module in self.named_modules() if isinstance(module, _Operation | _If)
        }

    @property
    def floats(self) -> Collection[ir.Value]:
        """The floating-point constants."""
        return self._places.keys()

    def path(self, constant: ir.Value) -> str:
        """Return the path of the parameter that a floating-point constant is."""
        return f"constants.{self._places[constant]}"

    def layer(self, node: ir.Node) -> str:
        """Return the path of the module that runs a node; its output is the node's."""
        return self._paths[node]

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Run the graph."""
        known = {self._inputs[name]: _in_float32(value) for name, value in inputs.items()}
        known |= self._whole
        known |= {value: self.constants[place] for value, place in self._places.items()}
        return dict(zip(self.body.names, self.body(known), strict=True))


class _Body(nn.Module):
    """The nodes of a graph, the model's own or a branch's."""

    def __init__(self, graph: ir.Graph, constant: Set[ir.Value]) -> None:
        super().__init__()
        self.names = [str(value.name) for value in graph.outputs]
        self._outputs = list(graph.outputs)
        nodes = [node for node in graph if name_of(node) != "Constant"]
        self.operations = nn.ModuleList(
            _If(node, constant) if name_of(node) == "If" else _Operation(node) for node in nodes
        )
        own = {output for node in nodes for output in node.outputs}
        needed = {*graph.outputs}
        self._let_go: list[list[ir.Value]] = []
        for node in reversed(nodes):
            used = (own & {*_used(node), *node.outputs}) - needed
            needed |= used
            self._let_go.insert(0, list(used))

    def forward(self, known: Known) -> list[Tensor]:
        """Run the nodes; their values are added to `known` until they are let go."""
        for operation, last in zip(self.operations, self._let_go, strict=True):
            operation(known)
            for value in last:
                known.pop(value, None)
        return [known[value] for value in self._outputs]


class _Operation(nn.Module):
    """One node."""

    def __init__(self, node: ir.Node) -> None:
        super().__init__()
        self.node, self._operator = node, OPERATORS[name_of(node)]

    def forward(self, known: Known) -> Result:
        """Add the node's outputs to `known`, and return them."""
        inputs = [None if value is None else known[value] for value in self.node.inputs]
        try:
            result = self._operator(self.node, *inputs)
        except InputError:
            raise
        except Exception as error:  # whatever torch raises
            raise InputError(f"{_label(self.node)} does not run in torch: {first_line(error)}") from error
        outputs = [result] if isinstance(result, Tensor) else result
        known.update(zip(self.node.outputs, outputs, strict=True))
        return result


class _If(nn.Module):
    """Two branches, of which one is run."""

    def __init__(self, node: ir.Node, constant: Set[ir.Value]) -> None:
        super().__init__()
        self.node = node
        self.branches = nn.ModuleList(
            _Body(node.attributes[name].as_graph(), constant) for name in ("else_branch", "then_branch")
        )

    def forward(self, known: Known) -> Result:
        """Add the node's outputs to `known`, and return them."""
        condition = self.node.inputs[0]
        assert condition is not None
        outputs: list[Tensor] = self.branches[int(bool(known[condition]))](dict(known))
        known.update(zip(self.node.outputs, outputs, strict=True))
        return outputs


def _used(node: ir.Node) -> Iterator[ir.Value]:
    """Yield what a node takes, within its branches too."""
    yield from (value for value in node.inputs if value is not None)
    for attribute in node.attributes.values():
        if attribute.type == ir.AttributeType.GRAPH:
            yield from attribute.as_graph().outputs
            for inner in attribute.as_graph():
                yield from _used(inner)


def _constants(model: ir.Model) -> Iterator[tuple[ir.Value, Tensor]]:
    """Yield the initializers that are used, and what Constant nodes hold."""
    for graph in model.graphs():
        for value in graph.initializers.values():
            if value.const_value is not None and (value.uses() or value.is_graph_output()):
                yield value, _tensor(value.const_value.numpy())
    for node in RecursiveGraphIterator(model.graph):
        if name_of(node) == "Constant":
            with naming(_label(node)):
                yield node.outputs[0], _tensor(_held(node))


def _held(node: ir.Node) -> NDArray[Any]:
    attributes = node.attributes
    if "value" in attributes:
        return attributes["value"].as_tensor().numpy()
    for kind, dtype in (("int", np.int64), ("float", np.float32)):
        for name in (f"value_{kind}", f"value_{kind}s"):
            if name in attributes:
                return np.array(attributes[name].value, dtype)
    raise InputError("a constant that is no number: no translation to torch")


def _tensor(array: NDArray[Any]) -> Tensor:
    """A copy as torch has it, see `dtype_of`."""
    dtype = dtype_of(ir.DataType.from_numpy(array.dtype))
    wide = np.float32 if dtype == torch.float32 else np.int64
    return torch.from_numpy(np.array(array, wide)).to(dtype)


def _in_float32(value: Tensor) -> Tensor:
    return value.float() if value.is_floating_point() else value


def _label(node: ir.Node) -> str:
    return f"{node.op_type} {node.name}" if node.name else node.op_type
