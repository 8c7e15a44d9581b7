"""Which operators compute with weights, and which numbers of a weight are one output channel.

A new operator is one function here and one line in `CONSUMERS`.
"""

from collections.abc import Callable

import onnx_ir as ir

from muquant.format.channels import ROWS, Channels

ChannelsOf = Callable[[ir.Node, tuple[int, ...]], Channels | None]
"""(operator, shape of the weight) -> its output channels; None where it is no weight there."""


def _right_of_matmul(_: ir.Node, shape: tuple[int, ...]) -> Channels:
    return _stacked(shape, len(shape) - 1)


def _left_of_matmul(_: ir.Node, shape: tuple[int, ...]) -> Channels:
    return _stacked(shape, len(shape) - 2)


def _stacked(shape: tuple[int, ...], axis: int) -> Channels:
    """An axis of the matrix, and the places of the matrix in a stack of them, such as an expert."""
    return Channels((*(place for place in range(len(shape) - 2) if shape[place] > 1), axis))


def _right_of_gemm(gemm: ir.Node, _: tuple[int, ...]) -> Channels:
    return Channels((0 if gemm.attributes.get_int("transB", 0) else 1,))


def _left_of_gemm(gemm: ir.Node, _: tuple[int, ...]) -> Channels:
    return Channels((1 if gemm.attributes.get_int("transA", 0) else 0,))


def _convolution(_: ir.Node, __: tuple[int, ...]) -> Channels:
    return ROWS


def _transposed_convolution(node: ir.Node, _: tuple[int, ...]) -> Channels:
    """A group and an output in it, of [groups * inputs, outputs, ...]."""
    return Channels((1,), node.attributes.get_int("group", 1))


def _embedding(gather: ir.Node, shape: tuple[int, ...]) -> Channels | None:
    return ROWS if gather.attributes.get_int("axis", 0) in (0, -len(shape)) else None


CONSUMERS: dict[str, dict[int, ChannelsOf]] = {
    "Conv": {1: _convolution},
    "ConvTranspose": {1: _transposed_convolution},
    "Gather": {0: _embedding},
    "Gemm": {1: _right_of_gemm, 0: _left_of_gemm},
    "MatMul": {1: _right_of_matmul, 0: _left_of_matmul},
}
"""Operator -> the inputs that may be a weight, the usual one first."""

RECURRENT = {"GRU": (1, 2), "LSTM": (1, 2), "RNN": (1, 2)}
"""Operators whose weights stay float, and the inputs that these are: an error in them is fed back, step after
step, and onnxruntime packs them before it folds constants."""
