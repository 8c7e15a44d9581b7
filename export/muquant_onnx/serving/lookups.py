"""Whether the nodes of a graph look the integers of a weight up as its metadata says."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import cache, lru_cache
from itertools import product
from typing import NamedTuple, get_args

import onnx

from muquant.format.spec import LEVEL_GRIDS
from muquant_onnx.format.decode_function import DOMAIN, Layout, Tables, Words
from muquant_onnx.format.expressions import Digest, Expressions, bodies, body, constant_of, digest
from muquant_onnx.format.first_functions import FIRST_FUNCTIONS
from muquant_onnx.format.names import Part, label

Shape = tuple[int, ...]


class Integers(NamedTuple):
    """What is looked up for a weight.

    Attributes:
        tables: in what, whatever the layout.
        shape: that it has.
    """

    tables: Tables
    shape: Shape

    def digest(self, weight: str) -> Digest:
        """What stands for a value that is this of a weight."""
        return digest("integers", weight, self.tables.name, self.shape)


class Lookups:
    """Knows the nodes of a graph that decode, in whatever order and however weights share them.

    Attributes:
        expressions: of the graph.
        bodies: of the model's functions.
        constants: initializers that no caller can set.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        graph, inputs = proto.graph, {value.name for value in proto.graph.input}
        self.constants = {tensor.name: tensor for tensor in graph.initializer if tensor.name not in inputs}
        self.bodies = bodies(proto.functions)
        self.expressions = Expressions(graph.node, self.constants, self.bodies)
        self._parts: dict[tuple[str, str, str], list[str]] = {}
        self._joined: dict[str, list[tuple[str, list[str]]]] = {}
        for node in graph.node:
            if node.op_type == "Concat" and node.output and _states(node, axis=0):
                members = list(node.input)
                for name in {*members}:
                    self._joined.setdefault(name, []).append((node.output[0], members))

    def find(self, weight: str, value: str, expected: Tables) -> Integers | None:
        """Return what `value` is of a weight, where that is looked up in `expected` tables of any layout."""
        return self._find(weight, value, [expected])

    def describe(self, weight: str, value: str) -> str:
        """Say, in words, in which tables a value is looked up."""
        every = (
            Tables(bits, levels, grid, places)
            for bits, (grid, levels), places in product(range(2, 9), LEVEL_GRIDS, (False, True))
            if bits <= LEVEL_GRIDS[grid, levels].widest and (not places or LEVEL_GRIDS[grid, levels].odd)
        )
        found = self._find(weight, value, every)
        if found is None:
            return "nodes that decode nothing that this version writes"
        tables, shape = found
        what = f"{tables.bits} bits, {tables.levels}, {tables.grid}{', places' if tables.places else ''}"
        return f"nodes that decode {what}, of shape {list(shape)}"

    def _find(self, weight: str, value: str, expected: Iterable[Tables]) -> Integers | None:
        try:
            return self._looked_up(weight, value, expected)
        except (LookupError, ValueError, TypeError):  # nodes without the inputs that theirs have
            return None

    def _looked_up(self, weight: str, value: str, expected: Iterable[Tables]) -> Integers | None:
        reshape = self._maker(value)
        if reshape is None:
            return None
        if (reshape.domain, reshape.overload) == (DOMAIN, "") and len(reshape.input) == 3:
            return self._called(weight, reshape, expected)
        shape = self.integers(reshape.input[1]) if reshape.op_type == "Reshape" else None
        if shape is None or min(shape, default=1) < 1 or reshape.attribute or reshape.domain:
            return None
        gather = self._maker(self._uncut(reshape.input[0], math.prod(shape)))
        if gather is None or gather.op_type != "Gather" or not _states(gather, axis=1):
            return None
        for tables in expected:
            for kind in _layouts(tables):
                if self._is_part(gather.input[0], kind, label(weight, Part.MU)) and self._is_part(
                    gather.input[1], kind.words, label(weight, Part.PACKED)
                ):
                    return Integers(tables, shape)
        return None

    def _called(self, weight: str, call: onnx.NodeProto, expected: Iterable[Tables]) -> Integers | None:
        """What a call of a function of format 1 is, `(packed, mu, shape)`."""
        *given, shape = call.input
        wanted, size = [label(weight, part) for part in (Part.PACKED, Part.MU)], self.integers(shape)
        if (
            not self._alike(given, wanted)
            or size is None
            or call.attribute
            or not self.is_first_function(call)
        ):
            return None
        suffix = call.op_type.removeprefix("MuLawDecode")
        return next(
            (Integers(tables, size) for tables in expected if tables.name == f"MuLawTables{suffix}"), None
        )

    def is_first_function(self, call: onnx.NodeProto) -> bool:
        """Whether a node calls a function of format 1 that is as it was written."""
        found = self.bodies.get((call.domain, call.op_type, call.overload))
        return found is not None and FIRST_FUNCTIONS.get(call.op_type) == found.hex()

    def integers(self, name: str) -> Shape | None:
        """The numbers of a constant, int64 [N]."""
        tensor = self.constants.get(name)
        if tensor is None:
            made = self._maker(name)
            tensor = None if made is None else constant_of(made)
        if tensor is None or len(tensor.dims) != 1 or tensor.data_type != onnx.TensorProto.INT64:
            return None
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            return None
        return tuple(onnx.numpy_helper.to_array(tensor).tolist())

    def _uncut(self, value: str, count: int) -> str:
        """What a value is the first `count` numbers of, if it is; else it."""
        cut = self._maker(value)
        if cut is None or cut.op_type != "Slice" or cut.domain or len(cut.input) != 3:
            return value
        flat = self._maker(cut.input[0])
        if flat is None or flat.op_type != "Reshape" or flat.attribute or flat.domain:
            return value
        found = [self.integers(name) for name in (*cut.input[1:], flat.input[1])]
        return flat.input[0] if found == [(0,), (count,), (-1,)] else value

    def _is_part(self, value: str, function: Tables | Words, constant: str) -> bool:
        """Whether a value is what a function makes of a constant, alone or among others behind each other."""
        split = self._maker(value)
        if split is None or split.op_type != "Split":
            return self._is_made(value, function, constant)
        if not _states(split, axis=0) or len(split.input) != 2:
            return False
        place = self.expressions.producers[value][1]
        for whole, members in self._joined.get(constant, ()):
            key = split.output[0], function.name, whole
            if key not in self._parts:
                sizes = tuple(self._size(name, function) for name in members)
                fits = self.integers(split.input[1]) == sizes
                self._parts[key] = members if fits and self._is_made(split.input[0], function, whole) else []
            if self._alike(self._parts[key][place : place + 1], [constant]):
                return True
        return False

    def _is_made(self, value: str, function: Tables | Words, given: str) -> bool:
        """Whether a value is what a function makes of another."""
        return self.expressions.of(value) in self._results(function, self.expressions.of(given))

    def _size(self, constant: str, function: Tables | Words) -> int:
        """How many rows a function makes of one constant among others."""
        tensor = self.constants.get(constant)
        if tensor is None:
            return -1
        if isinstance(function, Tables):
            return 1 if list(tensor.dims) == [1, 1] else -1
        return function.shape(math.prod(tensor.dims))[0]

    def _results(self, function: Tables | Words, given: Digest) -> Iterator[Digest]:
        """What values may be that a function makes: written out, or called."""
        yield _applied(function, given)
        called = self.bodies.get((DOMAIN, function.name, ""))
        if called is not None and called == _body(function):
            yield digest(digest("node", called, given), 0)

    def _alike(self, some: list[str], others: list[str]) -> bool:
        """Whether names are those of equal values."""
        digests = ([self.expressions.of(name) for name in names] for names in (some, others))
        return some == others or next(digests) == next(digests)

    def _maker(self, value: str) -> onnx.NodeProto | None:
        made = self.expressions.producers.get(value)
        return None if made is None or self._overridden(made[0]) else made[0]

    def _overridden(self, node: onnx.NodeProto) -> bool:
        """Whether a node of a standard operator is a call of a function of the model."""
        return not node.domain and (node.domain, node.op_type, node.overload) in self.bodies


def _states(node: onnx.NodeProto, **attributes: int) -> bool:
    """Whether a standard node has these attributes and no others."""
    return not node.domain and {each.name: each.i for each in node.attribute} == attributes


@cache
def _layouts(tables: Tables) -> list[Tables]:
    return [replace(tables, layout=layout) for layout in get_args(Layout)]


@cache
def _function(function: Tables | Words) -> onnx.FunctionProto:
    return onnx.parser.parse_function(function.text())


@cache
def _body(function: Tables | Words) -> Digest | None:
    return body(_function(function), {})


@lru_cache(4096)
def _applied(function: Tables | Words, given: Digest) -> Digest:
    """What a value is that a function makes of another, its nodes written out."""
    proto = _function(function)
    return Expressions(proto.node, {}, {}, {proto.input[0]: given}).of(proto.output[0])
