"""Weights as onnxruntime's own operator `MatMulNBits` takes them; files hold standard operators only."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from muquant_onnx.lowering.kernels import largest_block
from muquant_onnx.serving.weights import Array, Decoded

_PADDED_BLOCK = 32


@dataclass(frozen=True, eq=False)
class KernelWeight:
    """A weight matrix for `MatMulNBits`.

    Attributes:
        codes: uint8 [outputs, blocks, bytes]: integers of 8 bits, each plus 128, or of 4, each plus 8, the
            first of a byte in its low half.
        scales: float32 [outputs * blocks].
        block_size: inputs in a block; the last may be padded.
        inputs: K.
        outputs: N.
    """

    codes: NDArray[np.uint8]
    scales: NDArray[np.float32]
    block_size: int
    inputs: int
    outputs: int


def kernel_weight(decoded: Decoded, bits: Literal[4, 8], *, places: bool) -> KernelWeight:
    """Lay out a matrix whose channel axis is the outputs.

    Args:
        decoded: the weight; its levels fit in int8.
        bits: of an integer.
        places: whether the integers are the j of levels k = 2 j + 1, which go with 2 step.
    """
    packed = decoded.packed
    steps, step = packed.spec.steps, (2 if places else 1) * packed.step
    outputs = packed.channels.count(packed.shape)
    inputs = packed.size // max(outputs, 1)
    block = steps.group_size or largest_block(inputs) or _PADDED_BLOCK
    zero = 1 << (bits - 1)
    integers = (decoded.places if places else decoded.codebook).astype(np.int16)
    codes: Array = decoded.look_up((integers + zero).astype(np.uint8))
    if packed.channels.axis:
        codes = np.ascontiguousarray(codes.T)
    blocks = -(-inputs // block)
    if missing := blocks * block - inputs:
        codes = np.pad(codes, ((0, 0), (0, missing)), constant_values=zero)
    if bits == 4:
        codes = codes[:, ::2] | codes[:, 1::2] << 4
    if steps.kind != "group":
        step = np.repeat(np.broadcast_to(step, (outputs, 1)), blocks, 1)
    scales = np.ascontiguousarray(step, np.float32).reshape(-1)
    return KernelWeight(codes.reshape(outputs, blocks, -1), scales, block, inputs, outputs)
