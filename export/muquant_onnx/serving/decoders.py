"""Where a graph decodes its compressed weights, and what it makes of them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import onnx_ir as ir

from muquant_onnx.format.names import Part, label, parse_label
from muquant_onnx.lowering.kernels import CONTRIB


class UnknownFormError(Exception):
    """A weight is used in a form that is not ours; the message names the operator."""


@dataclass(frozen=True, eq=False)
class Root:
    """A value that is made of the levels of a weight and holds nothing else.

    Attributes:
        kind: "weight", the weight in its own shape; "matrix", the weight [inputs, outputs] of a product;
            "rows", rows of the weight that a Gather takes.
        value: it.
        consumer: the node that takes the levels: for rows, the Gather.
        transposed: of a matrix: whether the stored weight is [outputs, inputs].
    """

    kind: Literal["weight", "matrix", "rows"]
    value: ir.Value
    consumer: ir.Node
    transposed: bool = False


@dataclass(frozen=True, eq=False)
class Decoding:
    """Where the levels of a weight come out.

    Attributes:
        weight: name of the weight.
        levels: what comes out: the k of the weight, or
        places: the j of k = 2 j + 1.
    """

    weight: str
    levels: ir.Value
    places: bool


def decodings(graph: ir.Graph) -> Iterator[Decoding]:
    """Yield where `graph` decodes its weights, by functions or written out."""
    for node in graph:
        for output in node.outputs:
            found = parse_label(output.name)
            if found is None or found.part not in (Part.LEVELS, Part.PLACES):
                continue
            if label(found.weight, Part.PACKED) in graph.initializers:
                yield Decoding(found.weight, output, found.part is Part.PLACES)


def stored_kernels(graph: ir.Graph) -> Iterator[ir.Node]:
    """Yield each product with a weight of the file that is onnxruntime's own operator."""
    for node in graph:
        if (node.domain, node.op_type) == (CONTRIB, "MatMulNBits") and node.inputs[1] is not None:
            found = parse_label(node.inputs[1].name)
            if found is not None and found.part is Part.KERNEL_CODES:
                yield node


def roots(levels: ir.Value) -> Iterator[Root]:
    """Yield what is made of `levels`.

    Raises:
        UnknownFormError: something that FORMAT.md does not describe.
    """
    for node, place in _uses(levels):
        output = node.outputs[0]
        match node.op_type, place:
            case "Slice", 0:
                yield from roots(output)
            case "Gather", 0:
                product = _only_user(_only_user(output, "Cast").outputs[0], "Mul")
                yield Root("rows", product.outputs[0], node)
            case "Transpose", 0:
                for root in roots(output):
                    if root.kind != "matrix" or root.transposed:
                        raise UnknownFormError("Transpose")
                    yield replace(root, transposed=True)
            case "DequantizeLinear", 0:
                yield Root("matrix", output, node)
            case "Cast", 0 if node.attributes.get_int("to", 0) == ir.DataType.INT4:
                scaled = _only_user(output, "DequantizeLinear")
                yield Root("matrix", scaled.outputs[0], scaled)
            case "Cast", 0:
                product = _only_user(output, "Mul")
                yield Root("weight", _rounded(product.outputs[0]), product)
            case _:
                raise UnknownFormError(node.op_type)


def _uses(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """The uses of a value that nothing but standard nodes of its own graph may have."""
    producer = value.producer()
    for node, _ in value.uses():
        if node.domain or producer is None or node.graph is not producer.graph:
            raise UnknownFormError(node.op_type)
    if value.is_graph_output():
        raise UnknownFormError("an output")
    return list(value.uses())


def _only_user(value: ir.Value, op_type: str) -> ir.Node:
    """The one node that uses `value`, of a type."""
    uses = _uses(value)
    if len(uses) != 1 or uses[0][0].op_type != op_type:
        raise UnknownFormError(", ".join(node.op_type for node, _ in uses))
    return uses[0][0]


def _rounded(decoded: ir.Value) -> ir.Value:
    """What consumers of a decoded weight get: it, or it rounded to a half type."""
    for node in decoded.consumers():
        output = node.outputs[0]
        found = parse_label(output.name)
        if node.op_type == "Cast" and found is not None and found.part is Part.ROUNDED:
            return output
    return decoded
