"""What the methods that look at a layer's output share: its weight by columns, and what they weigh."""

import math
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from muquant.format.law import grid_levels
from muquant.format.rows import from_rows, spread, to_matrix
from muquant.format.spec import MuLawSpec
from muquant.format.tensor import QuantizedTensor, short_steps, significant
from muquant.quantization.moments import Moments
from muquant.quantization.places import Places
from muquant.quantization.rounding.nearest import Codebook, nearest_codes, target

Columns = NDArray[np.float32]
"""A column of all rows, [blocks, rows]."""


@dataclass(frozen=True, eq=False)
class RoundingProblem:
    """Choose levels and steps so that E[((w - q) x)^2] is small: (w - q) H (w - q)^T for each row w of a
    weight.

    Weights lie column by column, [blocks, inputs, rows], since that is how they are rounded.

    Attributes:
        target: what the levels should stand for.
        second: H, the second moment of the inputs as it is believed, [blocks, inputs, inputs].
        start: a solution, whose format and layout are kept.
    """

    target: Tensor
    second: Tensor
    start: QuantizedTensor

    @classmethod
    def of(cls, weight: Tensor, start: QuantizedTensor, moments: Moments) -> Self:
        """Set up for a float32 weight, some quantized form of it, and its layer's inputs."""
        spec = start.spec
        scale = spread(start.step.double() * spec.grid_max, spec, start.shape, start.channels)
        matrix = to_matrix(target(weight, scale.float(), spec), start.channels)
        return cls(moments.blocks(matrix).mT.contiguous(), moments.shrunk, start)

    @property
    def spec(self) -> MuLawSpec:
        """The format."""
        return self.start.spec

    def steps(self, step: Tensor) -> Tensor:
        """The step of each weight from `Granularity.step_shape`, [blocks, inputs, rows], or where all weights
        of a row share theirs [blocks, 1, rows]."""
        blocks, inputs, rows = self.target.shape
        if self.spec.steps.kind != "group":
            return step.expand(blocks * rows, 1).reshape(blocks, 1, rows)
        wide = step.reshape(blocks, rows, -1).mT.repeat_interleave(self.spec.steps.group_size, 1)
        return wide[:, :inputs]

    def levels(self, codes: Tensor) -> Tensor:
        """The integers that codes of the weight's shape stand for, float32 [blocks, inputs, rows]."""
        blocks, inputs, rows = self.target.shape
        columns = to_matrix(codes, self.start.channels).reshape(blocks, rows, inputs).mT
        return grid_levels(self.spec).float()[columns.int()].contiguous()

    def slope(self, levels: Tensor, step: Tensor) -> Tensor:
        """H (q - w), half of what the error changes by with each weight: [blocks, inputs, rows]."""
        return self.second @ (levels * self.steps(step) - self.target)

    def error(self, quantized: QuantizedTensor) -> float:
        """(w - q) H (w - q)^T, summed over the rows."""
        difference = self.levels(quantized.codes) * self.steps(quantized.step) - self.target
        return float(((self.second @ difference) * difference).double().sum())

    def quantized(self, levels: Tensor, step: Tensor) -> QuantizedTensor:
        """A solution from levels [blocks, inputs, rows] and steps, `Granularity.step_shape`."""
        shape, channels = self.start.shape, self.start.channels
        rows = levels.mT.reshape(-1, levels.shape[1])
        codes = nearest_codes(rows, torch.ones(1, 1), Codebook.of(self.spec))
        return QuantizedTensor(
            self.spec, from_rows(codes, self.spec, shape, channels).contiguous(), step, channels
        )


_NO_STEP = 2.0**-100
"""Weights of so small a step are zero: nothing that is divided by it is a number."""


class ColumnRounder:
    """Gives the weights of one column after the other their nearest levels.

    In numpy, of which a call costs a third of one of torch's: a column is short, and there are many.

    Args:
        spec: the format; its mu is a number.
        steps: [blocks, inputs or 1, rows].
    """

    def __init__(self, spec: MuLawSpec, steps: Tensor) -> None:
        places = Places(spec)
        self._levels, self._bounds = places.levels().numpy(), (places.lowest, places.highest)
        self._steps: NDArray[np.float32] = steps.numpy()
        self._halves = np.zeros(
            self._steps.shape, np.float32
        )  # all weights of next to no scale count as zero
        np.divide(2, self._steps, out=self._halves, where=self._steps > _NO_STEP)
        self._scratch = np.empty((len(self._steps), self._steps.shape[2]), np.float32)
        self._place = np.empty(self._scratch.shape, np.int64)

    def __call__(self, wanted: Columns, column: int, levels: Any, values: Any) -> None:
        """Write the levels nearest to `wanted`, of a tie the upper one, and what they stand for.

        Args:
            wanted: the column's weights.
            column: its number.
            levels: to write to; likewise `values`.
        """
        own = column if self._steps.shape[1] > 1 else 0
        scratch, (lowest, highest) = self._scratch, self._bounds
        np.multiply(wanted, self._halves[:, own], out=scratch)
        np.floor(scratch, out=scratch)
        np.minimum(scratch, highest, out=scratch)
        np.maximum(scratch, lowest, out=scratch)
        np.subtract(scratch, lowest, out=self._place, casting="unsafe")
        self._levels.take(self._place, out=scratch, mode="clip")
        levels[...] = scratch
        np.multiply(scratch, self._steps[:, own], out=values)


def refit(problem: RoundingProblem, levels: Tensor, step: Tensor, slope: Tensor) -> tuple[Tensor, Tensor]:
    """Return the best steps for levels [blocks, inputs, rows], and the slope that they have.

    The error is quadratic in the steps: with all but one group's fixed, that group's best is a ratio. One
    pass over the groups; a step that would not be positive stays. In the mapped domain the scale is part of
    the network's function and stays as it is.

    Args:
        problem: which weights they stand for.
        levels: the levels.
        step: their steps so far, `Granularity.step_shape`.
        slope: of both, see `RoundingProblem.slope`.
    """
    spec = problem.spec
    if spec.domain == "mapped":
        return step, slope
    blocks, inputs, rows = levels.shape
    kind, short = spec.steps.kind, spec.shortens(step.numel())
    size = spec.steps.group_size if kind == "group" else inputs
    new = step.reshape(1, 1, 1).clone() if kind == "tensor" else step.reshape(blocks, rows, -1).clone()
    for group in range(math.ceil(inputs / size)):
        part = slice(group * size, (group + 1) * size)
        own = levels[:, part]
        moved = problem.second[:, :, part] @ own  # what a change of the step by one does to the slope
        fall = (slope[:, part] * own).sum(1)
        curvature = (moved[:, part] * own).sum(1)
        if kind == "tensor":
            fall, curvature = fall.sum((0, 1), keepdim=True), curvature.sum((0, 1), keepdim=True)
        change = torch.where(curvature > 0, -fall / curvature, 0.0)
        old = new[:, :, group]
        if short:
            change = significant(old + change) - old  # of what 8 bits hold the nearest to the best is best
        change = torch.where((old + change > 0) & (old > 0), change, 0.0)
        new[:, :, group] += change
        slope = torch.addcmul(slope, moved, change[:, None])
    fitted = new.reshape(step.shape)
    held = short_steps(fitted) if short else fitted
    return held, slope if torch.equal(held, fitted) else problem.slope(levels, held)
