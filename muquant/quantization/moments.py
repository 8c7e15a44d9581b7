"""`Moments` of a layer's inputs, of which the second turns a weight's error into its output's."""

import math
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from muquant.base.errors import InputError

LEAST_SHRINKAGE = 0.003
"""Patches of one image are no independent samples, which the estimate of the shrinkage takes them for."""


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
    """

    mean: Tensor
    second: Tensor
    third: Tensor
    fourth: Tensor
    count: int
    unit: float = 1.0

    @property
    def inputs(self) -> int:
        """The length of x."""
        return self.second.shape[1]

    def blocks(self, matrix: Tensor) -> Tensor:
        """View a matrix [channels, inputs] as [blocks, channels / blocks, inputs]."""
        return matrix.reshape(len(self.second), -1, self.inputs)

    def power(self, matrix: Tensor) -> Tensor:
        """E[(m x)^2] for each row m of a weight matrix, float32 [channels], x as in `mean`.

        Of the difference between a weight and its quantized form this is the squared error of the output.
        """
        rows = self.blocks(matrix)
        return ((rows @ self.second) * rows).sum(2).reshape(-1)

    def about(self, center: Tensor) -> "Moments":
        """The moments of x - center, with float32 [blocks, inputs] in the same unit.

        What float32 loses in the differences may leave no variance where there is little. So much is added.
        """
        mean, second, c = self.mean, self.second, center
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
        )

    def in_unit(self, unit: float) -> "Moments":
        """The same in another unit, a power of two, not below the present one."""
        share = self.unit / unit
        if share == 1:
            return self
        sums = (self.mean, self.second, self.third, self.fourth)
        first, second, third, fourth = (each * share**power for power, each in enumerate(sums, 1))
        return Moments(first, second, third, fourth, self.count, unit)

    def shrunk(self) -> Tensor:
        """The second moment as it should be believed of so few samples, invertible: [blocks, inputs, inputs].

        Ledoit and Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", 2004: a
        step towards the multiple of the identity that has the same trace, as long as the estimate's own error
        calls for. Inputs that are always zero keep a little of it.
        """
        second = self.second
        mean = _trace(second) / self.inputs
        round_matrix = torch.where(mean > 0, mean, 1)[:, None, None] * torch.eye(self.inputs)
        error = (self.fourth - second.square().sum((1, 2))).clamp(min=0) / self.count
        distance = (second - round_matrix).square().sum((1, 2))
        share = (error / distance.clamp(min=1e-30)).clamp(LEAST_SHRINKAGE, 1)[:, None, None]
        return torch.lerp(second, round_matrix, share)


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(1)


def unit_of(largest: float) -> float:
    """The power of two by which numbers up to `largest` are to be divided, so that their fourth powers, and
    sums of many of them, are numbers of float32; 1 where they are so as they are."""
    if largest == 0 or 2.0**-16 <= largest <= 2.0**16:
        return 1.0
    return 2.0 ** min(max(math.frexp(largest)[1], -126), 126)


@dataclass
class MomentSums:
    """Sums over the vectors that one weight is multiplied by.

    Attributes:
        name: of the weight.
        shape: of its matrix, [channels, inputs].
        first: sum of x so far, in the unit of `largest`; those of the other moments likewise.
        count: vectors that were seen.
        largest: magnitude of an input so far.
        bad: vectors among them that hold NaN or infinity.
    """

    name: str
    shape: tuple[int, ...]
    first: Tensor | float = 0.0
    second: Tensor | float = 0.0
    third: Tensor | float = 0.0
    fourth: Tensor | float = 0.0
    count: int = 0
    largest: float = 0.0
    bad: int = 0

    def add(self, vectors: Tensor) -> None:
        """Take in float32 [blocks, n, inputs]."""
        self.count += vectors.shape[1]
        if not vectors.numel():
            return
        largest = float(vectors.abs().max())
        if not math.isfinite(largest):
            self.bad += int((~vectors.isfinite()).any(2).any(0).sum())
            return
        self._grow(largest)
        unit = unit_of(self.largest)
        if unit != 1:
            vectors = vectors * (1 / unit)
        square = vectors.square().sum(2)
        self.first = vectors.sum(1) + self.first
        self.second = vectors.mT @ vectors + self.second
        self.third = (square[:, None] @ vectors).squeeze(1) + self.third
        self.fourth = square.square().sum(1) + self.fourth

    def _grow(self, largest: float) -> None:
        """Let the unit be that of the largest number; what was summed so far follows it exactly."""
        before, self.largest = self.largest, max(self.largest, largest)
        share = unit_of(before) / unit_of(self.largest)
        if share != 1 and before != 0:
            self.first *= share
            self.second *= share**2
            self.third *= share**3
            self.fourth *= share**4

    def moments(self) -> Moments:
        """Divide by the number of vectors, which must not be 0.

        Raises:
            InputError: a vector held NaN or infinity.
        """
        if self.bad:
            raise InputError(
                f"{self.name}: calibration: expected finite inputs of its layer, found NaN or infinity in "
                f"{self.bad:,} of {self.count:,} vectors; give samples like those that the model was trained "
                "on, or leave the layer out"
            )
        sums = (self.first, self.second, self.third, self.fourth)
        first, second, third, fourth = (torch.as_tensor(each) / self.count for each in sums)
        return Moments(first, second, third, fourth, self.count, unit_of(self.largest))


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

    def about(self, center: Tensor) -> "InputMoments":
        """The inputs less `center`, [blocks, inputs] in their unit."""
        return InputMoments(self.fit.about(center), self.held_out.about(center))
