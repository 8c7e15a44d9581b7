"""Finished weights in the place of what would decode them, in a graph as it lies in its file.

What decodes is found by its name: `NAME.levels`, `NAME.decoded`, `NAME.dequantized` and so on, see FORMAT.md.
Of these values only those that something else needs are made; the nodes in front of them are left out. Where
nothing proves that a value is what it is called, its nodes stay.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Literal

import onnx
import onnx_ir as ir
from onnx import helper

from muquant.base.errors import InputError
from muquant_onnx.format.decode_function import DOMAIN
from muquant_onnx.format.names import Label, Part, label, parse_label
from muquant_onnx.format.packed_weight import PackedWeight
from muquant_onnx.lowering.kernels import CONTRIB
from muquant_onnx.serving.matmul_nbits import KernelWeight, kernel_weight
from muquant_onnx.serving.order import used_by
from muquant_onnx.serving.weights import Array, Decoded

_MATRICES = (Part.DEQUANTIZED, Part.DEQUANTIZED_PLACES)


def finish(
    proto: onnx.ModelProto,
    weights: Mapping[str, PackedWeight],
    trusts: Callable[[str, str], bool],
    *,
    kernels: bool,
    accuracy_level: int,
) -> dict[str, Array]:
    """Put finished weights in the place of what decodes them, in place.

    Args:
        proto: a file that muquant wrote.
        weights: of the file, by name.
        trusts: whether a value that is called a part of a weight is that: (name of the value, of the weight).
        kernels: whether products with integer weights become `MatMulNBits`; else their matrices are float.
        accuracy_level: of these kernels: 4 rounds activations to int8, 1 does not.

    Returns:
        the values of the initializers that now stand for the weights, by name. The model refers to them as
        external data at a location of that name.

    Raises:
        InputError: nodes are not what their names say.
    """
    finisher = _Finisher(proto, weights, trusts, accuracy_level if kernels else None)
    try:
        finisher.finish()
    except (LookupError, ValueError, TypeError) as error:
        raise InputError(
            f"what decodes the weights of the file is not what its names say ({error!r}); export it again"
        ) from error
    return finisher.arrays


class _Finisher:
    """Walks a graph from its end."""

    def __init__(
        self,
        proto: onnx.ModelProto,
        weights: Mapping[str, PackedWeight],
        trusts: Callable[[str, str], bool],
        accuracy_level: int | None,
    ) -> None:
        self.proto, self.weights, self.trusts, self.accuracy_level = proto, weights, trusts, accuracy_level
        self.arrays: dict[str, Array] = {}
        self.kernels: dict[tuple[str, str], KernelWeight] = {}
        self.producers = {name: node for node in proto.graph.node for name in node.output}

    def finish(self) -> None:
        """Leave out what is not needed, and make what is."""
        graph = self.proto.graph
        needed = {output.name for output in graph.output}
        for place in reversed(range(len(graph.node))):
            node = graph.node[place]
            if needed.isdisjoint(node.output):
                del graph.node[place]
            elif (found := self.decoded(node)) is not None:
                self.put(node.output[0], partial(self.content, found, node))
                del graph.node[place]
            else:
                if (node.domain, node.op_type) == (CONTRIB, "MatMulNBits"):
                    self.use_kernel(node, self.accuracy_level or 1)
                elif (node.domain, node.op_type) == ("", "MatMul") and self.accuracy_level is not None:
                    self.use_kernel(node, self.accuracy_level)
                needed.update(used_by(node))
        for place in reversed(range(len(graph.initializer))):
            if (name := graph.initializer[place].name) not in needed and name not in self.arrays:
                del graph.initializer[place]
        if not any(node.domain == DOMAIN for node in graph.node):
            for place in reversed(range(len(self.proto.functions))):
                if self.proto.functions[place].domain == DOMAIN:
                    del self.proto.functions[place]

    def decoded(self, node: onnx.NodeProto) -> Label | None:
        """What a node decodes, or makes of what is decoded, if its name says so."""
        if len(node.output) != 1:
            return None
        found = parse_label(node.output[0])
        if found is None or found.part not in _CONTENT or found.weight not in self.weights:
            return None
        return found if self.trusts(node.output[0], found.weight) else None

    def content(self, found: Label, node: onnx.NodeProto) -> Array:
        """The value that `decoded` has found."""
        packed = self.weights[found.weight]
        if found.part is Part.ROUNDED:
            packed = packed.of_type(ir.DataType(_attribute(node, "to")))
        return _CONTENT[found.part](Decoded(packed))

    def use_kernel(self, product: onnx.NodeProto, accuracy_level: int) -> None:
        """Let onnxruntime's kernel for integer weights do a product with integers of a weight."""
        name, bits = self.integers(product)
        if name is None:
            return
        key = name, f"kernel{bits}"
        if key not in self.kernels:
            packed = self.weights[name]
            places = bits == 4 and packed.spec.level_grid.odd
            self.kernels[key] = kernel_weight(Decoded(packed), bits, places=places)
        weight = self.kernels[key]
        codes, scales = (label(name, f"kernel{bits}_{part}") for part in ("codes", "scales"))
        self.put(codes, lambda: weight.codes)
        self.put(scales, lambda: weight.scales)
        product.op_type, product.domain = "MatMulNBits", CONTRIB
        product.input[:] = [product.input[0], codes, scales]
        del product.attribute[:]
        for attribute, value in (
            ("K", weight.inputs),
            ("N", weight.outputs),
            ("bits", bits),
            ("block_size", weight.block_size),
            ("accuracy_level", accuracy_level),
        ):
            product.attribute.append(helper.make_attribute(attribute, value))
        if all(entry.domain != CONTRIB for entry in self.proto.opset_import):
            self.proto.opset_import.append(helper.make_opsetid(CONTRIB, 1))

    def integers(self, product: onnx.NodeProto) -> tuple[str | None, Literal[4, 8]]:
        """The weight whose integers a product takes, if it does, and their bits."""
        if product.domain == CONTRIB:
            found = parse_label(product.input[1])
            ours = found is not None and found.part is Part.KERNEL_CODES and found.weight in self.weights
            if found is None or not ours or not self.trusts(product.output[0], found.weight):
                return None, 8
            return found.weight, 4 if _attribute(product, "bits") == 4 else 8
        dequantize = self.producers.get(product.input[1])
        found = None if dequantize is None else self.decoded(dequantize)
        if dequantize is None or found is None or found.part not in _MATRICES:
            return None, 8
        cast = self.producers.get(dequantize.input[0])
        narrow = cast is not None and cast.op_type == "Cast" and _attribute(cast, "to") == ir.DataType.INT4
        return found.weight, 4 if narrow else 8

    def put(self, name: str, make: Callable[[], Array]) -> None:
        """Make the initializer `name`, once."""
        if name not in self.arrays:
            self.arrays[name] = array = make()
            tensor = self.proto.graph.initializer.add(
                name=name,
                dims=array.shape,
                data_type=ir.DataType.from_numpy(array.dtype),
                data_location=onnx.TensorProto.EXTERNAL,
            )
            tensor.external_data.add(key="location", value=name)


_CONTENT: dict[Part, Callable[[Decoded], Array]] = {
    Part.LEVELS: Decoded.levels,
    Part.OWN_LEVELS: Decoded.levels,
    Part.PLACES: Decoded.all_places,
    Part.OWN_PLACES: Decoded.all_places,
    Part.DECODED: Decoded.weight,
    Part.ROUNDED: Decoded.weight,
    Part.DEQUANTIZED: partial(Decoded.matrix, places=False),
    Part.DEQUANTIZED_PLACES: partial(Decoded.matrix, places=True),
}
"""The parts that are values of the graph which decode, and what each is."""


def _attribute(node: onnx.NodeProto, name: str) -> int:
    return next((each.i for each in node.attribute if each.name == name), 0)
