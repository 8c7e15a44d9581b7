"""`Moments` of a layer's inputs, of which the second turns a weight's error into its output's."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from muquant.base.errors import InputError

WIDE = 256
"""Inputs from which half of a symmetric product is computed."""
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

    def power(self, matrix: Tensor, center: Tensor | None = None) -> Tensor:
        """E[(m (x - c))^2] for each row m of a weight matrix, float32 [channels], x as in `mean`.

        Of the difference between a weight and its quantized form this is the squared error of the output.

        Args:
            matrix: [channels, inputs].
            center: c, float32 [blocks, inputs]; None for zero.
        """
        rows = self.blocks(matrix)
        power = ((rows @ self.second) * rows).sum(2)
        if center is not None:
            along, mean = ((rows @ each[:, :, None]).squeeze(2) for each in (center, self.mean))
            power = power + along * (along - 2 * mean)
        return power.reshape(-1)

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


def _products(vectors: Tensor) -> Tensor:
    """The sum of x x^T over [blocks, n, inputs]: one of the two halves, and its reflection."""
    inputs = vectors.shape[2]
    if inputs < WIDE:
        return vectors.mT @ vectors
    sums = vectors.new_empty(len(vectors), inputs, inputs)
    width = -(-inputs // 4)
    for begin in range(0, inputs, width):
        part = slice(begin, begin + width)
        sums[:, part, begin:] = vectors[:, :, part].mT @ vectors[:, :, begin:]
        sums[:, begin + width :, part] = sums[:, part, begin + width :].mT
    return sums


def _trace(matrices: Tensor) -> Tensor:
    return matrices.diagonal(dim1=1, dim2=2).sum(1)


def unit_of(largest: float) -> float:
    """The power of two by which numbers up to `largest` are to be divided, so that their fourth powers, and
    sums of many of them, are numbers of float32; 1 where they are so as they are."""
    if largest == 0 or 2.0**-16 <= largest <= 2.0**16:
        return 1.0
    return 2.0 ** min(max(math.frexp(largest)[1], -126), 126)


@dataclass(frozen=True, eq=False)
class VectorSums:
    """Sums over some vectors x, in the unit of the largest number among them.

    Attributes:
        sums: of x, x x^T, x^T x x and (x^T x)^2, float32 as in `Moments`; None where there are no numbers, or
            a vector holds NaN or infinity.
        count: the vectors.
        largest: magnitude of a number.
        bad: vectors that hold NaN or infinity.
    """

    sums: tuple[Tensor, Tensor, Tensor, Tensor] | None
    count: int
    largest: float = 0.0
    bad: int = 0

    @classmethod
    def of(cls, vectors: Tensor) -> Self:
        """Sum up float32 [blocks, n, inputs]."""
        count = vectors.shape[1]
        if not vectors.numel():
            return cls(None, count)
        largest = float(torch.stack(torch.aminmax(vectors)).abs().max())
        if not math.isfinite(largest):
            return cls(None, count, bad=int((~vectors.isfinite()).any(2).any(0).sum()))
        unit = unit_of(largest)
        if unit != 1:
            vectors = vectors * (1 / unit)
        square = torch.linalg.vecdot(vectors, vectors)
        sums = (
            vectors.sum(1),
            _products(vectors),
            (square[:, None] @ vectors).squeeze(1),
            square.square().sum(1),
        )
        return cls(sums, count, largest)


@dataclass
class MomentSums:
    """Sums over the vectors that one weight is multiplied by.

    Attributes:
        name: of the weight.
        shape: of its matrix, [channels, inputs].
        sums: of x, x x^T, x^T x x and (x^T x)^2 so far, in the unit of `largest`.
        count: vectors that were seen.
        largest: magnitude of an input so far.
        bad: vectors among them that hold NaN or infinity.
    """

    name: str
    shape: tuple[int, ...]
    sums: tuple[Tensor, ...] | None = None
    count: int = 0
    largest: float = 0.0
    bad: int = 0

    def add(self, vectors: Tensor | VectorSums) -> None:
        """Take in float32 [blocks, n, inputs], or the sums over them."""
        part = vectors if isinstance(vectors, VectorSums) else VectorSums.of(vectors)
        self.count += part.count
        self.bad += part.bad
        if part.sums is None:
            return
        before, self.largest = self.largest, max(self.largest, part.largest)
        new = _in_unit(part.sums, part.largest, self.largest)
        if self.sums is None:
            self.sums = new
        else:
            old = _in_unit(self.sums, before, self.largest)
            self.sums = tuple(one + other for one, other in zip(old, new, strict=True))

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
        assert self.sums is not None
        first, second, third, fourth = (each / self.count for each in self.sums)
        return Moments(first, second, third, fourth, self.count, unit_of(self.largest))


def _in_unit(sums: Sequence[Tensor], largest: float, other: float) -> tuple[Tensor, ...]:
    """Sums of the first to fourth powers in the unit of another largest number."""
    share = unit_of(largest) / unit_of(other) if largest else 1.0
    return tuple(sums) if share == 1 else tuple(each * share**power for power, each in enumerate(sums, 1))


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
