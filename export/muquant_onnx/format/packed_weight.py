"""A quantized weight as a file holds it."""

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from muquant.format.channels import Channels
from muquant.format.spec import MuLawSpec
from muquant.format.steps import steps_size

if TYPE_CHECKING:  # which needs torch
    from muquant.format.tensor import QuantizedTensor


@dataclass(frozen=True, eq=False)
class PackedWeight:
    """A quantized weight whose codes are packed already, and may lie in a file.

    Attributes:
        spec: the format, its mu a number.
        shape: of the weight.
        packed: the packed codes, uint8 [bytes].
        step: float32, shape `spec.steps.step_shape(channels, inputs)`.
        channels: which of the weights are one output channel.
        dtype: what its consumers compute with; decoded weights are rounded to it from float32.
    """

    spec: MuLawSpec
    shape: tuple[int, ...]
    packed: ir.TensorProtocol
    step: NDArray[np.float32]
    channels: Channels
    dtype: ir.DataType = ir.DataType.FLOAT

    @classmethod
    def of(cls, quantized: "QuantizedTensor") -> "PackedWeight":
        """Pack the codes of `quantized` in memory."""
        packed = ir.tensor(quantized.packed())
        return cls(quantized.spec, quantized.shape, packed, quantized.step.numpy(), quantized.channels)

    def of_type(self, dtype: ir.DataType) -> "PackedWeight":
        """The same codes, for consumers that compute with `dtype`."""
        return replace(self, dtype=dtype)

    @property
    def size(self) -> int:
        """Number of weights."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the packed codes and the steps take."""
        return self.packed.nbytes + steps_size(self.step)
