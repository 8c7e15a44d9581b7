"""Each weight to its nearest level, on its own."""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from muquant.format.channels import Channels
from muquant.format.law import compand, grid_levels
from muquant.format.rows import from_rows, row_chunks, spread, to_rows
from muquant.format.spec import MuLawSpec
from muquant.format.tensor import QuantizedTensor, step_of


@dataclass(frozen=True, eq=False)
class Codebook:
    """What values are rounded to.

    Attributes:
        levels: the integer that each code stands for, float32 [2^bits].
        boundaries: from each a value has the next code, float32 [codes - 1].
    """

    levels: Tensor
    boundaries: Tensor

    @classmethod
    def of(cls, spec: MuLawSpec) -> Self:
        """Return that of a format whose mu is a number."""
        levels = grid_levels(spec).float()
        written = levels[: spec.codes]
        return cls(levels, (written[1:] + written[:-1]) / 2)


def nearest(weight: Tensor, scale: Tensor, spec: MuLawSpec, channels: Channels) -> QuantizedTensor:
    """Quantize `weight` (float32) with `scale` (`Granularity.step_shape`) to its nearest levels."""
    shape = tuple(weight.shape)
    step = step_of(scale, spec)
    wanted = target(weight, spread(scale, spec, shape, channels), spec)
    codes = nearest_codes(to_rows(wanted, spec, channels), step.reshape(-1, 1), Codebook.of(spec))
    return QuantizedTensor(spec, from_rows(codes, spec, shape, channels).contiguous(), step, channels)


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


def nearest_codes(values: Tensor, step: Tensor, codebook: Codebook) -> Tensor:
    """Return the codes, uint8, whose levels lie nearest to `values` [rows, n], with steps [rows or 1, 1].

    A value half-way between two levels takes the upper one, so that zero has the smallest positive level of
    mid-rise; with a zero step every value takes that code. Which of equal levels (a grid too coarse for mu)
    is taken is left open: they decode alike.
    """
    boundaries = codebook.boundaries.to(values.device)
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
