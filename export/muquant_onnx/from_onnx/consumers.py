"""Which operators compute with weights, and which axis of a weight is that of their output channels.

A new operator is one function here and one line in `CONSUMERS`.
"""

from collections.abc import Callable

import onnx_ir as ir

ChannelAxis = Callable[[ir.Node, int], int | None]
"""(operator, rank of the weight) -> axis of its output channels; None where it is no weight there."""


def _right_of_matmul(_: ir.Node, rank: int) -> int:
    return rank - 1


def _left_of_matmul(_: ir.Node, rank: int) -> int:
    return rank - 2


def _right_of_gemm(gemm: ir.Node, _: int) -> int:
    return 0 if gemm.attributes.get_int("transB", 0) else 1


def _left_of_gemm(gemm: ir.Node, _: int) -> int:
    return 1 if gemm.attributes.get_int("transA", 0) else 0


def _convolution(_: ir.Node, __: int) -> int:
    return 0


def _transposed_convolution(_: ir.Node, __: int) -> int:
    """The channel's place within its group, shared by the groups, as in `muquant.layers`."""
    return 1


def _embedding(gather: ir.Node, rank: int) -> int | None:
    return 0 if gather.attributes.get_int("axis", 0) in (0, -rank) else None


CONSUMERS: dict[str, dict[int, ChannelAxis]] = {
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
