"""What the values of a graph compute, as digests: equal ones are computed alike, whatever names say."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

Digest = bytes
FunctionKey = tuple[str, str, str]
"""Domain, name and overload."""

_OLDEST_OPSET = 13
"""From which on the operators that decode mean what they mean today."""


def digest(*parts: object) -> Digest:
    """Return a digest of texts, numbers and digests: the same in every process."""
    return hashlib.blake2b(repr(parts).encode(), digest_size=16).digest()


def of_array(array: NDArray[np.generic]) -> Digest:
    """Return the digest of a constant."""
    return digest("constant", array.dtype.str, array.shape, array.tobytes())


class Expressions:
    """Digests of what values compute, found from the values back to constants.

    What is not known to compute the same whenever it is written the same, such as an input, a constant that
    lies in a file, a node with a branch, or a value that nothing makes, has a digest of its name.

    Attributes:
        producers: name of a value -> the node that makes it, and its place among the node's outputs.
        known: name of a value -> its digest. One that is added before it is asked for holds.
    """

    def __init__(
        self,
        nodes: Iterable[onnx.NodeProto],
        constants: Mapping[str, onnx.TensorProto],
        bodies: Mapping[FunctionKey, Digest | None],
        known: Mapping[str, Digest] | None = None,
    ) -> None:
        self.producers = {name: (node, place) for node in nodes for place, name in enumerate(node.output)}
        self.known: dict[str, Digest] = dict(known or {})
        self._constants, self._bodies = constants, bodies

    def of(self, name: str) -> Digest:
        """Return the digest of a value."""
        waiting, begun = [name], set[str]()
        while waiting:
            current = waiting[-1]
            if current in self.known:
                waiting.pop()
                continue
            made = self.producers.get(current)
            missing = [] if made is None else [each for each in made[0].input if each not in self.known]
            if made is None:
                self.known[current] = self._constant(current)
            elif not missing:
                self._make(made[0])
            elif current in begun:  # a circle: no graph
                self.known[current] = digest("value", current)
            else:
                begun.add(current)
                waiting += missing
        return self.known[name]

    def _constant(self, name: str) -> Digest:
        tensor = self._constants.get(name)
        return digest("value", name) if tensor is None else _of_tensor(name, tensor)

    def _make(self, node: onnx.NodeProto) -> None:
        """Let the outputs of a node, whose inputs are known, be known."""
        value = constant_of(node)
        if value is not None:
            self.known.setdefault(node.output[0], _of_tensor(node.output[0], value))
            return
        made = self._node(node)
        for place, output in enumerate(node.output):
            self.known.setdefault(output, digest("value", output) if made is None else digest(made, place))

    def _node(self, node: onnx.NodeProto) -> Digest | None:
        """What a node computes; None where equal nodes need not compute the same."""
        if any(attribute.HasField("g") or attribute.graphs for attribute in node.attribute):
            return None
        operator: object = node.domain, node.op_type
        key = node.domain, node.op_type, node.overload
        if key in self._bodies:
            operator = self._bodies[key]
            if operator is None:
                return None
        inputs = [self.known[name] for name in node.input]
        return digest("node", operator, *sorted(map(_attribute, node.attribute)), *inputs)


def constant_of(node: onnx.NodeProto) -> onnx.TensorProto | None:
    """Return the tensor of a Constant node that has one."""
    if (node.domain, node.op_type, len(node.attribute)) != ("", "Constant", 1):
        return None
    tensor: onnx.TensorProto = node.attribute[0].t
    return tensor if node.attribute[0].HasField("t") else None


def _of_tensor(name: str, tensor: onnx.TensorProto) -> Digest:
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        return digest("value", name)
    try:
        return of_array(numpy_helper.to_array(tensor))
    except (LookupError, ValueError, TypeError):  # of a type or a size that no tensor has
        return digest("value", name)


def bodies(functions: Sequence[onnx.FunctionProto]) -> dict[FunctionKey, Digest | None]:
    """Return the digest of what each function computes of its inputs; None for one that calls others, or is
    written in an opset before those that decode."""
    keys = [(_domain(function), function.name, function.overload) for function in functions]
    unknown: dict[FunctionKey, Digest | None] = dict.fromkeys(keys)
    return {
        key: body(function, unknown) if keys.count(key) == 1 else None
        for key, function in zip(keys, functions, strict=True)
    }


def _domain(function: onnx.FunctionProto) -> str:
    """The domain of a function; that of ONNX has two names."""
    return "" if function.domain == "ai.onnx" else str(function.domain)


def body(function: onnx.FunctionProto, calls: Mapping[FunctionKey, Digest | None]) -> Digest | None:
    """Return the digest of one function."""
    if max((entry.version for entry in function.opset_import if not entry.domain), default=0) < _OLDEST_OPSET:
        return None
    given = {name: digest("input", place) for place, name in enumerate(function.input)}
    inner = Expressions(function.node, {}, calls, given)
    return digest("function", *map(inner.of, function.output))


def _attribute(attribute: onnx.AttributeProto) -> bytes:
    copy = attribute
    if attribute.doc_string:
        copy = onnx.AttributeProto()
        copy.CopyFrom(attribute)
        copy.ClearField("doc_string")
    content: bytes = copy.SerializeToString(deterministic=True)
    return content
