"""A weight in few bits: codes, one step for each group of weights, and the codebook that its spec implies."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from muquant.companding import compand, grid_levels
from muquant.errors import InputError
from muquant.packing import pack, packed_size
from muquant.spec import MuLawSpec

CHUNK = 2**18
"""Weights handled at a time: temporaries of this size stay in the processor's cache."""


def to_rows(weight: Tensor, spec: MuLawSpec, channel_axis: int) -> Tensor:
    """Lay a weight out as rows whose weights share a step (for "tensor" all rows share one).

    The weight becomes a matrix [channels, inputs], the channel axis first and the others flattened; with
    groups each channel is cut into rows of `group_size` (of all inputs, where there are fewer), the last one
    padded with zeros.
    """
    matrix = to_matrix(weight, channel_axis)
    if spec.steps.kind != "group":
        return matrix
    size = _row_size(spec, matrix.shape[1])
    if missing := -matrix.shape[1] % size:
        matrix = torch.nn.functional.pad(matrix, (0, missing))
    return matrix.reshape(-1, size)


def from_rows(rows: Tensor, spec: MuLawSpec, shape: tuple[int, ...], channel_axis: int) -> Tensor:
    """Undo `to_rows` for a weight of `shape`."""
    channels = shape[channel_axis]
    others = (*shape[:channel_axis], *shape[channel_axis + 1 :])
    if spec.steps.kind == "group":
        rows = rows.reshape(channels, rows.numel() // max(channels, 1))[:, : math.prod(others)]
    return rows.reshape(channels, *others).movedim(0, channel_axis)


def _row_size(spec: MuLawSpec, inputs: int) -> int:
    return max(min(spec.steps.group_size, inputs), 1)


def to_matrix(weight: Tensor, channel_axis: int) -> Tensor:
    """View a weight [..., channels, ...] as a matrix [channels, inputs]."""
    return weight.movedim(channel_axis, 0).flatten(1) if weight.dim() > 1 else weight[:, None]


def row_chunks(matrix: Tensor) -> Iterator[slice]:
    """Yield slices of the rows of `matrix`, about `CHUNK` weights each."""
    rows = max(1, CHUNK // max(1, matrix.shape[1]))
    for start in range(0, matrix.shape[0], rows):
        yield slice(start, start + rows)


def spread(step: Tensor, spec: MuLawSpec, shape: tuple[int, ...], channel_axis: int) -> Tensor:
    """Return steps or scales (`Granularity.step_shape`) broadcasting against a weight of `shape`."""
    if spec.steps.kind == "tensor":
        return step.reshape(())
    if spec.steps.kind == "channel":
        return step.reshape([-1 if axis == channel_axis else 1 for axis in range(len(shape))])
    inputs = math.prod(shape) // max(shape[channel_axis], 1)
    rows = step.reshape(-1, 1).expand(-1, _row_size(spec, inputs))
    return from_rows(rows, spec, shape, channel_axis)


def sum_by_step(values: Tensor, spec: MuLawSpec, channel_axis: int) -> Tensor:
    """Add up values in a weight's shape by step, to `Granularity.step_shape`: `spread` transposed."""
    matrix = to_matrix(values, channel_axis)
    if spec.steps.kind == "tensor":
        return matrix.sum().reshape(1, 1)
    return to_rows(values, spec, channel_axis).sum(1).reshape(spec.steps.step_shape(*matrix.shape))


def step_of(scale: Tensor, spec: MuLawSpec) -> Tensor:
    """Return `step = float32(scale / grid_max)`; the division is exact enough in float64."""
    return (scale.double() / spec.grid_max).float()


@dataclass(frozen=True, eq=False)
class QuantizedTensor:
    """A quantized weight; `dequantize` is the one definition of what it decodes to.

    Attributes:
        spec: the format, its mu a number.
        codes: uint8, in the weight's own shape.
        step: float32, shape `spec.steps.step_shape(channels, inputs)`.
        channel_axis: the axis of output channels.

    Raises:
        InputError: shapes or ranges do not fit together.
    """

    spec: MuLawSpec
    codes: Tensor
    step: Tensor
    channel_axis: int = 0

    def __post_init__(self) -> None:
        shape = self.shape
        _ = self.spec.expansion_mu  # refuses a mu that is still open
        if self.codes.dtype != torch.uint8 or self.step.dtype != torch.float32:
            raise InputError(
                f"codes are {self.codes.dtype} and steps {self.step.dtype}; expected uint8 and float32"
            )
        if not shape or not -1 < self.channel_axis < len(shape):
            raise InputError(
                f"channel axis {self.channel_axis} of a weight of shape {shape}; expected one of its axes"
            )
        channels = shape[self.channel_axis]
        expected = self.spec.steps.step_shape(channels, self.codes.numel() // max(channels, 1))
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
        return packed_size(self.codes.numel(), self.spec.bits) + 4 * self.step.numel()

    def dequantize(self) -> Tensor:
        """Return the weight, float32: `float32(k) * step`, in exactly this order of operations."""
        return self.levels().float() * spread(self.step, self.spec, self.shape, self.channel_axis)

    def levels(self) -> Tensor:
        """Return `k` for each weight, int16, in the weight's shape."""
        flat = self.codes.reshape(-1).int()
        return grid_levels(self.spec).to(flat.device).index_select(0, flat).reshape(self.shape)

    def packed(self) -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
        """Return the codes, row by row, packed to `spec.bits` bits each."""
        return pack(self.codes.cpu().reshape(-1).numpy(), self.spec.bits)


def target(weight: Tensor, scale: Tensor, spec: MuLawSpec) -> Tensor:
    """Return what the codes should come near to: the weight, or in the mapped domain scale * F(weight /
    scale).

    Args:
        weight: float32, any shape.
        scale: broadcasts against `weight`; a zero scale stands for weights that are all zero.
        spec: mu must be a number.
    """
    if spec.domain == "decoded" or spec.mu == 0:
        return weight
    unit = torch.where(scale > 0, weight / scale, 0.0).clamp(-1, 1)
    return scale * compand(unit, float(spec.mu))


def nearest_codes(values: Tensor, step: Tensor, spec: MuLawSpec) -> Tensor:
    """Return the codes, uint8, whose levels lie nearest to `values` [rows, n], with steps [rows or 1, 1].

    A value half-way between two levels takes the upper one, so that zero has the smallest positive level of
    mid-rise; with a zero step every value takes that code. Which of equal levels (a
    grid too coarse for mu) is taken is left open: they decode alike.
    """
    levels = grid_levels(spec)[: spec.codes].float().to(values.device)
    boundaries = (levels[1:] + levels[:-1]) / 2
    by_columns = values.stride(0) < values.stride(1)  # the way it lies in memory is the fast way through it
    matrix = values.T if by_columns else values
    codes = torch.empty(matrix.shape, dtype=torch.uint8, device=values.device)
    for rows in row_chunks(matrix):
        own = step.reshape(1, -1) if by_columns or step.shape[0] == 1 else step[rows]
        ratio = torch.where(own > 0, matrix[rows] / own, 0.0)
        codes[rows] = _count_passed(ratio, boundaries)
    return codes.T if by_columns else codes


def _count_passed(ratio: Tensor, boundaries: Tensor) -> Tensor:
    if len(boundaries) > 16:
        return torch.bucketize(ratio, boundaries, right=True, out_int32=True).to(torch.uint8)
    passed = torch.zeros_like(ratio, dtype=torch.uint8)  # for few boundaries three times faster than a search
    for boundary in boundaries.tolist():
        passed += (ratio >= boundary).view(torch.uint8)
    return passed
