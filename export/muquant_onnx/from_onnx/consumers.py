"""Which operators compute with weights, and which numbers of a weight are one output channel.

A new operator is one function here and one line in `CONSUMERS`.
"""

from collections.abc import Callable, Mapping

import onnx_ir as ir

from muquant.format.channels import ROWS, Channels

ChannelsOf = Callable[[ir.Node, tuple[int, ...]], Channels | None]
"""(operator, shape of the weight) -> its output channels; None where it is no weight there."""


def consumed(node: ir.Node) -> Mapping[int, ChannelsOf]:
    """Return the inputs of an operator that may be a weight, the usual one first."""
    if (node.domain, node.op_type) == ("", "Einsum"):
        return {index: _term_of_einsum(index) for index in range(len(node.inputs))}
    return CONSUMERS.get(node.domain, {}).get(node.op_type, {})


def _right_of_matmul(_: ir.Node, shape: tuple[int, ...]) -> Channels:
    return _stacked(shape, len(shape) - 1)


def _left_of_matmul(_: ir.Node, shape: tuple[int, ...]) -> Channels:
    return _stacked(shape, len(shape) - 2)


def _right_of_fused(matmul: ir.Node, shape: tuple[int, ...]) -> Channels | None:
    return _of_fused(matmul, shape, "B", -2 if matmul.attributes.get_int("transB", 0) else -1)


def _left_of_fused(matmul: ir.Node, shape: tuple[int, ...]) -> Channels | None:
    return _of_fused(matmul, shape, "A", -1 if matmul.attributes.get_int("transA", 0) else -2)


def _of_fused(matmul: ir.Node, shape: tuple[int, ...], side: str, axis: int) -> Channels | None:
    """`transBatch` has the stack of matrices in the place of their first axis."""
    if matmul.attributes.get_int(f"transBatch{side}", 0):
        return None
    return _stacked(shape, len(shape) + axis)


def _stacked(shape: tuple[int, ...], axis: int) -> Channels:
    """An axis of the matrix, and the places of the matrix in a stack of them, such as an expert."""
    return Channels((*(place for place in range(len(shape) - 2) if shape[place] > 1), axis))


def _right_of_gemm(gemm: ir.Node, _: tuple[int, ...]) -> Channels:
    return Channels((0 if gemm.attributes.get_int("transB", 0) else 1,))


def _left_of_gemm(gemm: ir.Node, _: tuple[int, ...]) -> Channels:
    return Channels((1 if gemm.attributes.get_int("transA", 0) else 0,))


def _rows(_: ir.Node, __: tuple[int, ...]) -> Channels:
    return ROWS


def _columns(_: ir.Node, shape: tuple[int, ...]) -> Channels | None:
    return Channels((1,)) if len(shape) == 2 else None


def _experts(_: ir.Node, shape: tuple[int, ...]) -> Channels | None:
    """[experts, outputs, inputs]."""
    return Channels((0, 1)) if len(shape) == 3 else None


def _gates(_: ir.Node, shape: tuple[int, ...]) -> Channels | None:
    """A direction and a row of one of its gates, [directions, gates * hidden, inputs]."""
    return Channels((0, 1)) if len(shape) == 3 else None


def _transposed_convolution(node: ir.Node, _: tuple[int, ...]) -> Channels:
    """A group and an output in it, of [groups * inputs, outputs, ...]."""
    return Channels((1,), node.attributes.get_int("group", 1))


def _taken(gather: ir.Node, shape: tuple[int, ...]) -> Channels | None:
    """What an index picks."""
    axis = gather.attributes.get_int("axis", 0)
    axis += len(shape) if axis < 0 else 0
    return Channels((axis,)) if axis < len(shape) else None


def _taken_by_rows(gather: ir.Node, _: tuple[int, ...]) -> Channels | None:
    return None if gather.attributes.get_int("batch_dims", 0) else ROWS


def _term_of_einsum(index: int) -> ChannelsOf:
    """The axes that are also axes of the result; where none is, rows. No weight where all are."""

    def channels(einsum: ir.Node, shape: tuple[int, ...]) -> Channels | None:
        equation = einsum.attributes.get_string("equation", "").replace(" ", "")
        left, arrow, right = equation.partition("->")
        terms = left.split(",")
        if index >= len(terms):
            return None
        if not arrow:  # the letters that are there once
            right = "".join(sorted(letter for letter in {*left} if left.count(letter) == 1))
        term = terms[index]
        if "." in term or len(term) != len(shape) or len({*term}) != len(term):
            return None
        kept = tuple(axis for axis, letter in enumerate(term) if letter in right)
        return None if len(kept) == len(term) else Channels(kept or (0,))

    return channels


CONSUMERS: dict[str, dict[str, dict[int, ChannelsOf]]] = {
    "": {
        "Conv": {1: _rows},
        "ConvTranspose": {1: _transposed_convolution},
        "DeformConv": {1: _rows},
        "GRU": {1: _gates, 2: _gates},
        "Gather": {0: _taken},
        "GatherND": {0: _taken_by_rows},
        "Gemm": {1: _right_of_gemm, 0: _left_of_gemm},
        "LSTM": {1: _gates, 2: _gates},
        "MatMul": {1: _right_of_matmul, 0: _left_of_matmul},
        "RNN": {1: _gates, 2: _gates},
    },
    "com.microsoft": {
        "Attention": {1: _columns},
        "ConvTransposeWithDynamicPads": {1: _transposed_convolution},
        "EmbedLayerNormalization": {2: _rows, 3: _rows, 4: _rows},
        "FusedConv": {1: _rows},
        "FusedGemm": {1: _right_of_gemm, 0: _left_of_gemm},
        "FusedMatMul": {1: _right_of_fused, 0: _left_of_fused},
        "MoE": {2: _experts, 4: _experts, 6: _experts},
        "TransposeMatMul": {1: _right_of_fused, 0: _left_of_fused},
        "WordConvEmbedding": {1: _rows, 3: _rows},
    },
}
"""Domain -> operator -> the inputs that may be a weight, the usual one first."""

RECURRENT = {"GRU", "LSTM", "RNN"}
"""Operators that feed the error of their weights back, step after step."""
