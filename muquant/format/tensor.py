"""A weight in few bits: codes, one step for each group of weights, and the codebook that its spec implies."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from muquant.base.errors import InputError
from muquant.format.channels import ROWS, Channels
from muquant.format.law import grid_levels
from muquant.format.packing import pack, packed_size
from muquant.format.rows import spread
from muquant.format.spec import MuLawSpec
from muquant.format.steps import SIGNIFICANT, SMALLEST_UNIT, steps_size, unit_of_steps


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """A quantized weight; `dequantize` is the one definition of what it decodes to.

    Attributes:
        spec: the format, its mu a number.
        codes: uint8, in the weight's own shape.
        step: float32, shape `spec.steps.step_shape(channels, inputs)`.
        channels: which of the weights are one output channel.

    Raises:
        InputError: shapes or ranges do not fit together.
    """

    spec: MuLawSpec
    codes: Tensor
    step: Tensor
    channels: Channels = ROWS

    def __post_init__(self) -> None:
        shape = self.shape
        _ = self.spec.expansion_mu  # refuses a mu that is still open
        if self.codes.dtype != torch.uint8 or self.step.dtype != torch.float32:
            raise InputError(
                f"codes are {self.codes.dtype} and steps {self.step.dtype}; expected uint8 and float32"
            )
        self.channels.check(shape)
        expected = self.spec.steps.step_shape(self.channels.count(shape), self.channels.inputs(shape))
        if tuple(self.step.shape) != expected:
            raise InputError(
                f"steps of shape {tuple(self.step.shape)} for a weight of shape {shape}; expected {expected}"
            )
        if not bool(torch.isfinite(self.step).all()) or bool((self.step < 0).any()):
            raise InputError("a step is negative or not finite; expected numbers from 0 up")
        if self.codes.numel() and int(self.codes.max()) >= 2**self.spec.bits:
            raise InputError(f"code {int(self.codes.max())} does not fit in {self.spec.bits} bits")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return tuple(self.codes.shape)

    @property
    def nbytes(self) -> int:
        """Bytes that the packed codes and the steps take."""
        return packed_size(self.codes.numel(), self.spec.bits) + steps_size(self.step.cpu().numpy())

    def dequantize(self) -> Tensor:
        """Return the weight, float32: `float32(k) * step`, in exactly this order of operations."""
        return self.levels().float() * spread(self.step, self.spec, self.shape, self.channels)

    def levels(self) -> Tensor:
        """Return `k` for each weight, int16, in the weight's shape."""
        flat = self.codes.reshape(-1).int()
        return grid_levels(self.spec).to(flat.device).index_select(0, flat).reshape(self.shape)

    def packed(self) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """Return the codes, row by row, packed to `spec.bits` bits each."""
        return pack(self.codes.cpu().reshape(-1).numpy(), self.spec.bits)


def step_of(scale: Tensor, spec: MuLawSpec) -> Tensor:
    """Return `step = float32(scale / grid_max)`, and of these steps those nearest to them that 8 bits hold
    where the spec wants that; the division is exact enough in float64."""
    step = (scale.double() / spec.grid_max).float()
    return short_steps(step) if spec.shortens(step.numel()) else step


def short_steps(step: Tensor) -> Tensor:
    """Return the nearest steps that 8 bits hold, see `coded_steps`: float32 of any shape, not negative."""
    rounded = significant(step)
    unit = unit_of_steps(float(rounded.max()))
    if unit < SMALLEST_UNIT:  # all but zero
        return step
    return torch.where(rounded < 2**SIGNIFICANT * unit, (step / unit).round() * unit, rounded)


def significant(step: Tensor) -> Tensor:
    """Round float32 numbers to the significant bits of steps in 8 bits, whatever the largest is."""
    dropped = 24 - SIGNIFICANT
    bits = step.view(torch.int32) + (1 << (dropped - 1))
    return (bits >> dropped << dropped).view(torch.float32)
