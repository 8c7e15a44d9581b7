"""The nodes that decode: what weights have in common is computed once for all of them.

Small weights cost a runtime as many nodes as large ones. So tables of all weights of one kind come out of one
computation, and so do the words of small ones; a weight has two nodes of its own, or four where its codes do
not fill their last run.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from muquant.format.packing import RUN
from muquant.format.steps import integers
from muquant_onnx.format.decode_function import DOMAIN, PAIRED_WIDTHS, Tables, Words

SMALL = 2**14
"""Codes of a weight up to which a table of words takes more time to make than it saves."""
LARGE = 2**20
"""Codes of a weight from which on its words are left in pairs of bytes: worth a table of 2^17 words."""
TOGETHER = 2**22
"""Bytes of codes that are cut into words at once, at most: runtimes fold no values of a gigabyte."""
_STEM = "muquant:"
"""What the names of shared values begin with. No dot follows: they are no parts of a weight."""


class Lookup(NamedTuple):
    """Levels that nothing computes yet.

    Attributes:
        levels: the value: int8 or int16, of the weight's shape.
        packed: the codes, uint8 [bytes].
        mu: double [1, 1].
        shape: int64 [rank].
        tables: what they are looked up in.
    """

    levels: ir.Value
    packed: ir.Value
    mu: ir.Value
    shape: ir.Value
    tables: Tables

    def kind(self, *, pairs: bool) -> Tables:
        """The tables, in the layout that is best for so many codes."""
        count, layout = _size(self.levels), self.tables.layout
        if count < SMALL and not self.tables.kernel:
            layout = "codes"
        elif count >= LARGE and pairs and self.tables.bits in PAIRED_WIDTHS:
            layout = "pairs"
        return replace(self.tables, layout=layout)


def initializer(graph: ir.Graph, name: str, tensor: ir.TensorProtocol) -> ir.Value:
    """Add an initializer to a graph."""
    value = ir.Value(
        name=name,
        type=ir.TensorType(tensor.dtype),
        shape=ir.Shape(tensor.shape.numpy()),
        const_value=tensor,
    )
    graph.register_initializer(value)
    return value


class SharedValues:
    """Constants and nodes that belong to no weight alone, under names that nothing else in a graph has."""

    def __init__(self, graph: ir.Graph) -> None:
        self.graph = graph
        self._constants: dict[tuple[str, bytes], ir.Value] = {}
        self._used: set[str | None] | None = None
        self._counts = Counter[str]()

    def constant(self, name: str, content: NDArray[Any]) -> ir.Value:
        """Return the initializer of this name and content, made once."""
        key = name, content.tobytes()
        if key not in self._constants:
            free = self._free(name)
            self._constants[key] = initializer(self.graph, free, ir.tensor(content, name=free))
        return self._constants[key]

    def call(
        self, function: Tables | Words, given: ir.Value, name: str, dtype: ir.DataType, shape: tuple[int, ...]
    ) -> ir.Value:
        """Append a call of a function, whose type and shape nothing else tells."""
        output = self.node(function.name, [given], name, domain=DOMAIN)
        output.type, output.shape = ir.TensorType(dtype), ir.Shape(shape)
        return output

    def node(
        self, op: str, inputs: Sequence[ir.Value], name: str, domain: str = "", **attributes: int
    ) -> ir.Value:
        """Append a node of one output."""
        return self._append(op, inputs, [name], domain, attributes)[0]

    def split(self, value: ir.Value, sizes: Sequence[int], name: str) -> list[ir.Value]:
        """Append a Split along the first axis; one part is the value itself."""
        if len(sizes) == 1:
            return [value]
        given = [value, self.constant("sizes", np.array(sizes))]
        return self._append("Split", given, [name] * len(sizes), "", {"axis": 0})

    def joined(self, values: Sequence[ir.Value], name: str) -> ir.Value:
        """Append a Concat along the first axis; of one value it is that."""
        return self.node("Concat", values, name, axis=0) if len(values) > 1 else values[0]

    def _append(
        self, op: str, inputs: Sequence[ir.Value], names: list[str], domain: str, attributes: dict[str, int]
    ) -> list[ir.Value]:
        outputs = [ir.Value(name=self._free(name)) for name in names]
        self.append(ir.node(op, inputs, attributes, domain=domain, outputs=outputs))
        return outputs

    def append(self, node: ir.Node) -> None:
        """Append a node without a name of its own: it would take more bytes than some weights."""
        self.graph.append(node)
        node.name = None

    def _free(self, name: str) -> str:
        """A name that is not used yet."""
        if self._used is None:
            values = (value for node in self.graph.all_nodes() for value in node.outputs)
            self._used = {
                value.name for value in (*values, *self.graph.inputs, *self.graph.initializers.values())
            }
        while True:
            number = self._counts[name]
            self._counts[name] += 1
            free = f"{_STEM}{name}:{number}" if number else f"{_STEM}{name}"
            if free not in self._used:
                self._used.add(free)
                return free

    def steps_in_units(self, codes: ir.Value) -> ir.Value:
        """What steps in 8 bits are multiples of their unit by: uint8 to float32 of the same shape."""
        table = self.constant("steps", integers().astype(np.float32))
        places = self.node("Cast", [codes], "places", to=ir.DataType.INT32)
        return self.node("Gather", [table, places], "units")


def decode(shared: SharedValues, lookups: Iterable[Lookup], *, pairs: bool) -> list[Tables | Words]:
    """Append what computes the levels of all `lookups`, and return the functions that it calls.

    Args:
        shared: of the graph that they are in.
        lookups: them.
        pairs: whether words of `LARGE` weights may stay in pairs of bytes.
    """
    kinds: dict[Tables, dict[ir.Value, list[Lookup]]] = {}
    for lookup in lookups:
        kinds.setdefault(lookup.kind(pairs=pairs), {}).setdefault(lookup.packed, []).append(lookup)
    for kind, weights in kinds.items():
        tables = _tables(shared, kind, [same[0].mu for same in weights.values()])
        words = _words(shared, kind, list(weights))
        for table, word, same in zip(tables, words, weights.values(), strict=True):
            found = _looked_up(shared, table, word, same[0])
            for lookup in same:
                shared.append(ir.node("Reshape", [found, lookup.shape], outputs=[lookup.levels]))
    return list(dict.fromkeys(function for kind in kinds for function in (kind, kind.words)))


def _tables(shared: SharedValues, kind: Tables, mus: list[ir.Value]) -> list[ir.Value]:
    """A table for each mu, [1, ...]."""
    count, mu = len(mus), shared.joined(mus, f"{kind.name}:mu")
    tables = shared.call(kind, mu, kind.name, kind.dtype, (count, *kind.shape))
    return shared.split(tables, [1] * count, kind.name)


def _words(shared: SharedValues, kind: Tables, packed: list[ir.Value]) -> list[ir.Value]:
    """The words of each weight. Small weights are cut into words together."""
    words, name = kind.words, f"{kind.name}:words"
    cut: list[ir.Value] = []
    for part in _parts(packed, 0 if words.layout == "pairs" else TOGETHER):
        sizes = [_size(each) for each in part]
        together = shared.joined(part, f"{kind.name}:packed")
        found = shared.call(words, together, name, ir.DataType.INT32, words.shape(sum(sizes)))
        cut += shared.split(found, [words.shape(size)[0] for size in sizes], name)
    return cut


def _parts(packed: Iterable[ir.Value], most: int) -> Iterator[list[ir.Value]]:
    """Yield values in turn, as many at a time as have `most` elements together, at least one."""
    part, size = list[ir.Value](), 0
    for each in packed:
        if part and size + _size(each) > most:
            yield part
            part, size = [], 0
        part.append(each)
        size += _size(each)
    yield part


def _looked_up(shared: SharedValues, table: ir.Value, words: ir.Value, lookup: Lookup) -> ir.Value:
    """The levels of a weight before they have its shape."""
    count = _size(lookup.levels)
    found = shared.node("Gather", [table, words], "found", axis=1)
    if count % RUN == 0:
        return found
    flat = shared.node("Reshape", [found, shared.constant("flat_shape", np.array([-1]))], "flat")
    start, end = (shared.constant("at", np.array([place])) for place in (0, count))
    return shared.node("Slice", [flat, start, end], "cut")


def _size(value: ir.Value) -> int:
    assert value.shape is not None
    return math.prod(value.shape.numpy())
