"""Weights as onnxruntime's own operator `MatMulNBits` takes them; files hold standard operators only."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from muquant_onnx.serving.weights import Array, Decoded

BLOCKS = (256, 128, 64, 32, 16)
"""Inputs that share a scale, as the operator takes them; the larger, the faster."""
_PADDED_BLOCK = 32


@dataclass(frozen=True, eq=False)
class KernelWeight:
    """A weight matrix for `MatMulNBits`.

    Attributes:
        codes: uint8 [outputs, blocks, bytes]: levels + 128.
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


def kernel_weight(decoded: Decoded) -> KernelWeight:
    """Lay out a matrix of int8 levels, its channel axis the outputs, for 8 bits."""
    packed = decoded.packed
    steps, step = packed.spec.steps, packed.step
    outputs = packed.shape[packed.channel_axis]
    inputs = packed.size // max(outputs, 1)
    block = steps.group_size or next((size for size in BLOCKS if inputs % size == 0), _PADDED_BLOCK)
    codes: Array = decoded.look_up((decoded.codebook.astype(np.int16) + 128).astype(np.uint8))
    if packed.channel_axis:
        codes = np.ascontiguousarray(codes.T)
    blocks = -(-inputs // block)
    if missing := blocks * block - inputs:
        codes = np.pad(codes, ((0, 0), (0, missing)), constant_values=128)
    if steps.kind != "group":
        step = np.repeat(np.broadcast_to(step, (outputs, 1)), blocks, 1)
    return KernelWeight(
        codes.reshape(outputs, blocks, block), np.ascontiguousarray(step).reshape(-1), block, inputs, outputs
    )
