"""What the methods that look at a layer's output share: its weight as blocks of rows, and what they weigh."""

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from muquant.format.rows import from_rows, spread, to_matrix
from muquant.format.spec import MuLawSpec
from muquant.format.tensor import QuantizedTensor
from muquant.quantization.moments import Moments
from muquant.quantization.rounding.nearest import Codebook, nearest_codes, target


@dataclass(frozen=True, eq=False)
class RoundingProblem:
    """Choose codes and steps so that E[((w - q) x)^2] is small: (w - q) H (w - q)^T for each row of a weight.

    Attributes:
        target: the rows w that the codes should stand for, [blocks, rows, inputs].
        second: H, the second moment of the inputs as it is believed, [blocks, inputs, inputs].
        start: a solution, whose format and layout are kept.
    """

    target: Tensor
    second: Tensor
    start: QuantizedTensor

    @classmethod
    def of(cls, weight: Tensor, start: QuantizedTensor, moments: Moments) -> "RoundingProblem":
        """Set up for a float32 weight, some quantized form of it, and its layer's inputs."""
        spec = start.spec
        scale = spread(start.step.double() * spec.grid_max, spec, start.shape, start.channels)
        wanted = target(weight, scale.float(), spec)
        matrix = to_matrix(wanted, start.channels)
        return cls(moments.blocks(matrix), moments.shrunk(), start)

    @property
    def spec(self) -> MuLawSpec:
        """The format."""
        return self.start.spec

    @cached_property
    def codebook(self) -> Codebook:
        """What is rounded to, kept: columns are rounded one by one."""
        return Codebook.of(self.spec)

    def blocks(self, values: Tensor) -> Tensor:
        """View a tensor of the weight's shape as [blocks, rows, inputs]."""
        return to_matrix(values, self.start.channels).reshape(self.target.shape)

    def steps(self, step: Tensor) -> Tensor:
        """The step of each weight, [blocks, rows, inputs]."""
        wide = spread(step, self.spec, self.start.shape, self.start.channels)
        return self.blocks(wide.expand(self.start.shape))

    def levels(self, codes: Tensor) -> Tensor:
        """The integers that codes stand for, float32, same shape."""
        return self.codebook.levels[codes.int()]

    def nearest(self, values: Tensor, step: Tensor) -> Tensor:
        """The codes nearest to `values`, of any shape, with a step for each."""
        flat = nearest_codes(values.reshape(-1, 1), step.reshape(-1, 1), self.codebook)
        return flat.reshape(values.shape)

    def error(self, quantized: QuantizedTensor) -> float:
        """(w - q) H (w - q)^T, summed over the rows."""
        difference = self.blocks(quantized.dequantize()) - self.target
        return float(((difference @ self.second) * difference).double().sum())

    def quantized(self, codes: Tensor, step: Tensor) -> QuantizedTensor:
        """A solution from codes [blocks, rows, inputs] and steps, `Granularity.step_shape`."""
        shape, channels = self.start.shape, self.start.channels
        codes = from_rows(codes, self.spec, shape, channels).contiguous()
        return QuantizedTensor(self.spec, codes, step, channels)


def refit(problem: RoundingProblem, codes: Tensor, step: Tensor) -> Tensor:
    """Return the best steps for codes [blocks, rows, inputs], in the shape of `step`.

    The error is quadratic in the steps: with all but one group's fixed, that group's best is a ratio. One
    pass over the groups; a step that would not be positive stays. In the mapped domain the scale is part of
    the network's function and stays as it is.
    """
    spec = problem.spec
    if spec.domain == "mapped":
        return step
    levels, kind = problem.levels(codes), spec.steps.kind
    inputs = levels.shape[2]
    size = spec.steps.group_size if kind == "group" else inputs
    new = step.reshape(*levels.shape[:2], -1).clone() if kind != "tensor" else step.reshape(1, 1, 1).clone()
    slope = (levels * problem.steps(step) - problem.target) @ problem.second
    for group in range(math.ceil(inputs / size)):
        part = slice(group * size, (group + 1) * size)
        own = levels[:, :, part]
        moved = own @ problem.second[:, part]  # what a change of the step by one does to the slope
        fall = (slope[:, :, part] * own).sum(2)
        curvature = (moved[:, :, part] * own).sum(2)
        if kind == "tensor":
            fall, curvature = fall.sum((0, 1), keepdim=True), curvature.sum((0, 1), keepdim=True)
        change = torch.where(curvature > 0, -fall / curvature, 0.0)
        old = new[:, :, group]
        change = torch.where((old + change > 0) & (old > 0), change, 0.0)
        new[:, :, group] += change
        slope = slope + change[:, :, None] * moved
    return new.reshape(step.shape)
