"""Sums over the vectors that weights are multiplied by, batch for batch: what `Moments` are made of."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from muquant.base.errors import InputError
from muquant.quantization.moments import Drift, Moments, unit_of

WIDE = 256
"""Inputs from which half of a symmetric product is computed."""
_POWERS = (1, 2, 3, 4, 1, 2, 2)
"""Of x in each of the sums."""


@dataclass(frozen=True, eq=False)
class VectorSums:
    """Sums over some vectors x, in the unit of the largest number among them.

    Attributes:
        sums: of x, x x^T, x^T x x and (x^T x)^2, and where the float network's vectors x + d are known of d,
            d x^T and d d^T, float32 as in `Moments` and `Drift`; None where there are no numbers, or a vector
            holds NaN or infinity.
        count: the vectors.
        largest: magnitude of a number.
        bad: vectors that hold NaN or infinity.
    """

    sums: tuple[Tensor, ...] | None
    count: int
    largest: float = 0.0
    bad: int = 0

    @classmethod
    def of(cls, vectors: Tensor, exact: Tensor | None = None, *, judged: bool = True) -> Self:
        """Sum up float32 [blocks, n, inputs].

        Args:
            vectors: them.
            exact: those of the float network, likewise.
            judged: whether anything is judged by them, for which d d^T is needed.
        """
        count = vectors.shape[1]
        if not vectors.numel():
            return cls(None, count)
        both = [vectors] if exact is None else [vectors, exact]
        largest = max(float(torch.stack(torch.aminmax(each)).abs().max()) for each in both)
        if not all(bool(torch.stack(torch.aminmax(each)).isfinite().all()) for each in both):
            bad = [(~each.isfinite()).any(2).any(0) for each in both]
            return cls(None, count, bad=int(torch.stack(bad).any(0).sum()))
        unit = unit_of(largest)
        if unit != 1:
            vectors = vectors * (1 / unit)
        square = torch.linalg.vecdot(vectors, vectors)
        sums: tuple[Tensor, ...] = (
            vectors.sum(1),
            _products(vectors),
            (square[:, None] @ vectors).squeeze(1),
            square.square().sum(1),
        )
        if exact is not None:
            drift = exact * (1 / unit) - vectors
            sums = (*sums, drift.sum(1), drift.mT @ vectors)
            sums = (*sums, _products(drift)) if judged else sums
        return cls(sums, count, largest)


@dataclass
class MomentSums:
    """Sums over the vectors that one weight is multiplied by.

    Attributes:
        name: of the weight.
        shape: of its matrix, [channels, inputs].
        sums: those of `VectorSums` so far, in the unit of `largest`.
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

    def add(self, part: VectorSums) -> None:
        """Take in those of other vectors."""
        self.count += part.count
        self.bad += part.bad
        if part.sums is None:
            return
        before, self.largest = self.largest, max(self.largest, part.largest)
        new = _in_unit(part.sums, part.largest, self.largest)
        if self.sums is None:
            self.sums = tuple(each.clone() for each in new)  # others may share them
        else:
            old = _in_unit(self.sums, before, self.largest)
            pairs = zip(old, new, strict=False)  # the drift is known where it is of all
            self.sums = tuple(one.add_(other) for one, other in pairs)

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
        first, second, third, fourth, *drift = (each / self.count for each in self.sums)
        unit = unit_of(self.largest)
        return Moments(first, second, third, fourth, self.count, unit, Drift(*drift) if drift else None)


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


def _in_unit(sums: Sequence[Tensor], largest: float, other: float) -> tuple[Tensor, ...]:
    """Sums in the unit of another largest number."""
    share = unit_of(largest) / unit_of(other) if largest else 1.0
    return tuple(
        each if share == 1 else each * share**power for each, power in zip(sums, _POWERS, strict=False)
    )
