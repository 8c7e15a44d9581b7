"""A file of ours against itself: whether its graph makes of a weight what the metadata says.

What is named as a part of a weight, `NAME.levels`, `NAME.decoded` and so on, is compared with what this
version would write there for the metadata, and with what format 1 had: node by node, as digests, whatever the
order of nodes and the names between. Nothing is decoded. Readers put finished weights in the place of what is
proven alone, so that they answer as onnxruntime does; what is not is in `doubts`.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from muquant_onnx.format.decode_function import Tables
from muquant_onnx.format.expressions import Digest
from muquant_onnx.format.names import Label, Part, label, parse_label
from muquant_onnx.format.packed_weight import PackedWeight
from muquant_onnx.format.reference import decode_steps
from muquant_onnx.lowering.kernels import CONTRIB
from muquant_onnx.serving.lookups import Integers, Lookups
from muquant_onnx.serving.templates import Form, Key, Steps, decoded_steps, template
from muquant_onnx.serving.weights import tensor_of

_LOOKED_UP = (Part.LEVELS, Part.PLACES, Part.KERNEL_CODES, Part.KERNEL_MATRIX)
_SLICED = {Part.OWN_LEVELS: False, Part.OWN_PLACES: True}
_FORMS: dict[Part, tuple[Form, ...]] = {
    Part.DECODED: ("decoded",),
    Part.ROUNDED: ("decoded",),
    Part.DEQUANTIZED: ("int8", "int4"),
    Part.DEQUANTIZED_PLACES: ("int4",),
}
_ROUNDED = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE)
"""What weights are rounded to for those that compute with it."""
_KERNELS: tuple[Form, ...] = ("kernel8", "kernel4")
_UNBLOCKED = 20
"""An opset in which a `DequantizeLinear` has no blocks: files may be written so in later ones too."""


class Proof:
    """What a file's graph is known to make of its weights.

    Attributes:
        trusted: names of values that are what they are called, and outputs of products in `MatMulNBits`.
        doubts: name of a weight -> why something that is called a part of it is not known to be that.
    """

    def __init__(self, proto: onnx.ModelProto, weights: Mapping[str, PackedWeight]) -> None:
        self.trusted, self.doubts = set[str](), dict[str, str]()
        self._weights, self._lookups = weights, Lookups(proto)
        self._expressions = self._lookups.expressions
        self._opset = max((entry.version for entry in proto.opset_import if not entry.domain), default=0)
        parts = list(self._parts(proto.graph))
        for value, found in parts:  # each step builds on those before
            if found.part in _LOOKED_UP:
                self._looked_up(value, found)
        for value, found in parts:
            if found.part in _SLICED:
                self._sliced(value, found)
            elif found.part in (Part.STEP, Part.SCALE):
                self._stepped(value, found)
        for value, found in parts:
            if found.part in _FORMS:
                self._made(value, found)
        for node in proto.graph.node:
            if (node.domain, node.op_type) == (CONTRIB, "MatMulNBits"):
                self._multiplied(node)

    def is_rows(self, weight: str, value: str, indices: str) -> bool:
        """Whether `value` is rows of a weight: those that a Gather takes by `indices`."""
        return any(
            found == [self._expressions.of(value)]
            for found in self._written("rows", weight, given=self._expressions.of(indices))
        )

    def _parts(self, graph: onnx.GraphProto) -> Iterator[tuple[str, Label]]:
        made = (name for node in graph.node for name in node.output[:1])
        for value in (*made, *(tensor.name for tensor in graph.initializer)):
            found = parse_label(value)
            if found is not None and found.weight in self._weights:
                yield value, found

    def _looked_up(self, value: str, found: Label) -> None:
        packed, expected = self._weights[found.weight], None
        for tables in _tables(found.part, packed):
            expected = expected or self._lookups.find(found.weight, value, tables)
        kernel = found.part not in (Part.LEVELS, Part.PLACES)
        if expected is not None and (kernel or expected.shape == packed.shape):
            self._trust(value, expected.digest(found.weight))
        elif not kernel:  # what becomes of those is told by the product
            spec = packed.spec
            said = f"{spec.bits} bits, {spec.levels}, {spec.grid_name}, of shape {list(packed.shape)}"
            other = "something else" if self.doubts else self._lookups.describe(found.weight, value)
            self._doubt(found.weight, value, said, other)

    def _sliced(self, value: str, found: Label) -> None:
        """The levels of a use behind the first: a slice that cuts nothing."""
        node = self._node(value, "Slice", 3)
        packed = self._weights[found.weight]
        whole = Integers(Tables.of(packed.spec, places=_SLICED[found.part]), packed.shape)
        start, end = (None, None) if node is None else map(self._lookups.integers, node.input[1:])
        everything = start == (0,) and end is not None and len(end) == 1 and end[0] >= packed.shape[0]
        known = whole.digest(found.weight)
        if node is not None and everything and self._expressions.of(node.input[0]) == known:
            self._trust(value, known)
        else:
            self._doubt(found.weight, value, "all of its levels", "something else")

    def _stepped(self, value: str, found: Label) -> None:
        """Steps as floats, or in 8 bits."""
        stored = self._constant(value)
        if stored is None:
            coded = Part.STEP_CODES if found.part is Part.STEP else Part.SCALE_CODES
            names = label(found.weight, coded, found.number), label(found.weight, Part.STEP_UNIT)
            codes, unit = map(self._constant, names)
            made = self._expressions.of(value) in decoded_steps(*map(self._expressions.of, names))
            if made and codes is not None and unit is not None and codes.dtype == np.uint8 and not unit.shape:
                stored = decode_steps(codes, unit)
        if stored is None or not _same_steps(stored, self._weights[found.weight], found.part):
            self._doubt(found.weight, value, "its steps", "something else")
        else:
            self._trust(value, Steps(found.part, stored.shape).digest(found.weight))

    def _constant(self, name: str) -> NDArray[Any] | None:
        """The values of a constant, if a name is that of one."""
        tensor = self._lookups.constants.get(name)
        return None if tensor is None else tensor_of(tensor).numpy()

    def _made(self, value: str, found: Label) -> None:
        actual, dtype = self._expressions.of(value), None
        if found.part is Part.ROUNDED:
            node = self._node(value, "Cast", 1)
            stated = [] if node is None else [each.i for each in node.attribute if each.name == "to"]
            dtype = next((dtype for dtype in _ROUNDED if dtype in stated), None)
        for form in _FORMS[found.part]:
            if [actual] in self._written(form, found.weight, dtype):
                self.trusted.add(value)
                return
        spec = self._weights[found.weight].spec
        channels = f"channel axes {list(self._weights[found.weight].channels.axes)}"
        said = f"its levels by steps of {spec.granularity}, {channels}"
        self._doubt(found.weight, value, said, "something else")

    def _multiplied(self, product: onnx.NodeProto) -> None:
        """A product whose kernel is in the file."""
        found = parse_label(product.input[1]) if len(product.input) > 1 else None
        if found is None or found.weight not in self._weights or found.part is not Part.KERNEL_CODES:
            return
        attributes = {each.name: each.i for each in product.attribute if each.name != "accuracy_level"}
        actual = [self._expressions.of(name) for name in product.input[1:]]
        key = self._key(found.weight)
        for form in _KERNELS:
            made = template(form, key)
            if made is not None and made.attributes == attributes and made.digests(found.weight) == actual:
                self.trusted.add(product.output[0])
                return
        self._doubt(found.weight, product.output[0], "a product with it", "something else")

    def _written(
        self, form: Form, weight: str, dtype: ir.DataType | None = None, given: Digest = b""
    ) -> Iterator[list[Digest]]:
        """What a form of a weight may be."""
        for opset in dict.fromkeys((self._opset, min(self._opset, _UNBLOCKED))):
            made = template(form, self._key(weight, dtype, opset))
            if made is not None:
                yield made.digests(weight, given)

    def _key(self, weight: str, dtype: ir.DataType | None = None, opset: int | None = None) -> Key:
        packed = self._weights[weight].of_type(dtype or ir.DataType.FLOAT)
        return Key.of(packed, opset or self._opset)

    def _node(self, value: str, op_type: str, inputs: int) -> onnx.NodeProto | None:
        """The standard node of a type that makes a value."""
        node, _ = self._expressions.producers.get(value, (None, 0))
        fits = node is not None and (node.domain, node.op_type) == ("", op_type) and len(node.input) == inputs
        return node if fits else None

    def _trust(self, value: str, known: Digest) -> None:
        self.trusted.add(value)
        self._expressions.known[value] = known

    def _doubt(self, weight: str, value: str, expected: str, found: str) -> None:
        reason = f"{value} should be, by its metadata, {expected}; the graph has {found}"
        self.doubts.setdefault(weight, reason)


def _tables(part: Part, packed: PackedWeight) -> Iterator[Tables]:
    """In what a part of a weight may be looked up."""
    odd = packed.spec.level_grid.odd
    if part in (Part.LEVELS, Part.PLACES):
        if odd or part is Part.LEVELS:
            yield Tables.of(packed.spec, places=part is Part.PLACES)
        return
    for form in _KERNELS:
        made = template(form, Key.of(packed, _UNBLOCKED))
        if made is not None:
            yield from (leaf.tables for leaf in made.leaves.values() if isinstance(leaf, Integers))


def _same_steps(stored: NDArray[np.generic], packed: PackedWeight, part: Part) -> bool:
    """Whether steps, as a part of a weight lays them out, are those of the weight."""
    wanted = packed.step
    if part is Part.SCALE and packed.spec.steps.kind == "tensor":  # repeated for each channel
        wanted = np.broadcast_to(wanted.reshape(-1), (packed.channels.count(packed.shape),))
    elif part is Part.SCALE:
        wanted = wanted.T
    return stored.dtype == np.float32 and np.array_equal(stored.reshape(-1), wanted.reshape(-1))
