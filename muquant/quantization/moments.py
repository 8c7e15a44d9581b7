"""`Moments` of a layer's inputs, of which the second turns a weight's error into its output's."""

import math
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

LEAST_SHRINKAGE = 0.003
"""Patches of one image are no independent samples, which the estimate of the shrinkage takes them for."""


@dataclass(frozen=True, eq=False)
class Drift:
    """By how much what the float network's layer sees, x + d, is off what the compressed one's sees, x.

    Attributes:
        mean: E[d], float32 [blocks, inputs].
        cross: E[d x^T], float32 [blocks, inputs, inputs].
        second: E[d d^T], likewise; None where nothing is judged by it.
    """

    mean: Tensor
    cross: Tensor
    second: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Moments:
    """The moments of the vectors x that a layer's weight matrix is multiplied by.

    A convolution multiplies each patch of its input. Where it has groups, each block of output channels sees
    channels of its own; elsewhere there is one block.

    Attributes:
        mean: E[x], float32 [blocks, inputs].
        second: E[x x^T], float32 [blocks, inputs, inputs].
        third: E[x^T x x], float32 [blocks, inputs].
        fourth: E[(x^T x)^2], float32 [blocks].
        count: vectors that were seen.
        unit: a power of two that all of this is in: the x above is the layer's input divided by it. It is 1
            unless inputs are so large or small that float32 does not hold their fourth powers.
        drift: where x is what the compressed network shows, how far the float one's is; None for nothing.
    """

    mean: Tensor
    second: Tensor
    third: Tensor
    fourth: Tensor
    count: int
    unit: float = 1.0
    drift: Drift | None = None

    @property
    def inputs(self) -> int:
        """The length of x."""
        return self.second.shape[1]

    def blocks(self, matrix: Tensor) -> Tensor:
        """View a matrix [channels, inputs] as [blocks, channels / blocks, inputs]."""
        return matrix.reshape(len(self.second), -1, self.inputs)

    def power(self, matrix: Tensor) -> Tensor:
        """E[(m x)^2] for each row m of a weight matrix, float32 [channels], x as in `mean`."""
        rows = self.blocks(matrix)
        return ((rows @ self.second) * rows).sum(2).reshape(-1)

    def about(self, center: Tensor) -> "Moments":
        """The moments of x - center, with float32 [blocks, inputs] in the same unit.

        What float32 loses in the differences may leave no variance where there is little. So much is added.
        """
        mean, second, c, drift = self.mean, self.second, center, self.drift
        square, far = _trace(second), c.square().sum(1)
        lost = 8 * torch.finfo(torch.float32).eps * (square + far) / math.sqrt(self.inputs)
        along, turned = (c * mean).sum(1), (second @ c[:, :, None]).squeeze(2)
        sides = c[:, :, None] * mean[:, None]
        return Moments(
            mean - c,
            second
            - sides
            - sides.mT
            + c[:, :, None] * c[:, None]
            + lost[:, None, None] * torch.eye(self.inputs),
            self.third - 2 * turned + far[:, None] * (mean - c) + (2 * along - square)[:, None] * c,
            self.fourth
            - 4 * (c * self.third).sum(1)
            + 4 * (c * turned).sum(1)
            + far * (2 * square - 4 * along + far),
            self.count,
            self.unit,
            None
            if drift is None
            else replace(drift, cross=drift.cross - drift.mean[:, :, None] * c[:, None]),
        )

    def with_noise(self, share: float) -> "Moments":
        """The moments of x + e, where e is normal and independent of x, and each of its numbers has `share`
        of the mean power of those of x. What is fitted to these stays nearer to the weight itself, in
        directions that x hardly has."""
        square, inputs = _trace(self.second), self.inputs
        power = share * square / inputs
        return replace(
            self,
            second=self.second + power[:, None, None] * torch.eye(inputs),
            third=self.third + (inputs + 2) * power[:, None] * self.mean,
            fourth=self.fourth
            + (2 * inputs + 4) * power * square
            + (inputs**2 + 2 * inputs) * power.square(),
        )

    def in_unit(self, unit: float) -> "Moments":
        """The same in another unit, a power of two, not below the present one."""
        share = self.unit / unit
        if share == 1:
            return self
        sums = (self.mean, self.second, self.third, self.fourth)
        first, second, third, fourth = (each * share**power for power, each in enumerate(sums, 1))
        drift = self.drift
        if drift is not None:
            judged = None if drift.second is None else drift.second * share**2
            drift = Drift(drift.mean * share, drift.cross * share**2, judged)
        return Moments(first, second, third, fourth, self.count, unit, drift)

    @cached_property
    def shrunk(self) -> Tensor:
        """The second moment as it should be believed of so few samples, invertible: [blocks, inputs, inputs].

        Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004: a
        step towards the multiple of the identity that has the same trace, as long as the estimate's own error
        calls for. Inputs that are always zero keep a little of it.
        """
        second = self.second
        mean = _trace(second) / self.inputs
        level = torch.where(mean > 0, mean, 1)
        error = (self.fourth - second.square().sum((1, 2))).clamp(min=0) / self.count
        distance = second.square().sum((1, 2)) - 2 * level * _trace(second) + self.inputs * level.square()
        share = (error / distance.clamp(min=1e-30)).clamp(LEAST_SHRINKAGE, 1)
        shrunk = second * (1 - share[:, None, None])
        shrunk.diagonal(dim1=1, dim2=2).add_((share * level)[:, None])
        return shrunk

    @cached_property
    def factor(self) -> tuple[Tensor, Tensor]:
        """The inputs by their power, the largest first, int64 [blocks, inputs]; and U, unit upper triangular,
        with `shrunk` in that order = U D U^T, D diagonal: [blocks, inputs, inputs]."""
        order = self.shrunk.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True)
        back = order.flip(1)[:, :, None].expand_as(self.shrunk)
        turned = self.shrunk.gather(1, back).gather(2, back.mT)
        upper = torch.linalg.cholesky(turned).flip(1, 2)
        return order, upper / upper.diagonal(dim1=1, dim2=2)[:, None]


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(1)


def unit_of(largest: float) -> float:
    """The power of two by which numbers up to `largest` are to be divided, so that their fourth powers, and
    sums of many of them, are numbers of float32; 1 where they are so as they are."""
    if largest == 0 or 2.0**-16 <= largest <= 2.0**16:
        return 1.0
    return 2.0 ** min(max(math.frexp(largest)[1], -126), 126)


@dataclass(frozen=True, eq=False)
class InputMoments:
    """What is known of one layer's inputs.

    Attributes:
        fit: on samples that codes are fitted to.
        held_out: on others, by which outcomes are judged; in the same unit.
    """

    fit: Moments
    held_out: Moments

    @classmethod
    def of(cls, fit: Moments, held_out: Moments) -> Self:
        """Bring both into one unit, the larger of theirs."""
        unit = max(fit.unit, held_out.unit)
        return cls(fit.in_unit(unit), held_out.in_unit(unit))

    def with_noise(self, share: float) -> Self:
        """Both with noise, see `Moments.with_noise`."""
        return replace(self, fit=self.fit.with_noise(share), held_out=self.held_out.with_noise(share))
