"""Samples in batches: what a model is called with, those to fit to and those held out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from muquant.base.errors import InputError, naming
from muquant.models.calls import Inputs

BATCH_SIZE = 32
"""Samples at a time, where they may be cut into batches."""
HELD_OUT = 4
"""Every so many-th sample is held out."""


@dataclass(frozen=True, eq=False)
class Samples:
    """Samples in batches, in memory; they may be run any number of times.

    Attributes:
        parts: what a model is called with, one after the other.
        whole: whether that is one call with all samples, of which any part is one as well.
        lone: whether they are the tensors of a list, which could also be the inputs of one call.
        taken: whether they are as a model takes them already, see `taken_by`.
        made_up: whether they are no samples but inputs that stand for them.
    """

    parts: tuple[Inputs, ...]
    whole: bool = False
    lone: bool = False
    taken: bool = False
    made_up: bool = False

    @property
    def count(self) -> int:
        """How many samples there are; a batch counts as one where that cannot be told."""
        return sum(map(rows_of, self.parts))

    @property
    def first(self) -> Inputs:
        """The first sample of arrays of all, else the first batch."""
        return self.parts[0].rows(0, 1) if self.whole else self.parts[0]

    def batches(self, size: int) -> Iterator[Inputs]:
        """Yield what a model is called with: of arrays of all samples `size` at a time, else batches as they
        were given."""
        return self.parts[0].batches(size) if self.whole else iter(self.parts)

    def cut(self, size: int) -> Self:
        """The same in batches of at most `size`, where they may be cut."""
        return replace(self, parts=tuple(self.batches(size)), whole=False)

    def joined(self) -> Iterator[Inputs]:
        """Yield neighbouring batches as one where they differ in their number of samples alone."""
        group: list[Inputs] = []
        for part in self.parts:
            if group and not _alike(group[0], part):
                yield _join(group)
                group = []
            group.append(part)
        yield _join(group)

    def rebatched(self, size: int) -> Iterator[Inputs]:
        """Yield the samples `size` at a time, as far as they may be run together."""
        for group in self.joined():
            yield from group.batches(size)

    def some(self, most: int) -> Self:
        """Return about so many of the samples, or all, spread over all and so are any first few of them;
        batches that cannot be cut stay whole, and one is always there."""
        if self.whole:
            return replace(self, parts=(self.parts[0].take(_spread_over(self.count, min(most, self.count))),))
        size = max(1, self.count // len(self.parts))
        places = _spread_over(len(self.parts), max(1, min(most // size, len(self.parts))))
        parts = tuple(self.parts[place] for place in places.tolist())
        if len(parts) == 1 and rows_of(parts[0]) > most:
            parts = (parts[0].take(_spread_over(rows_of(parts[0]), most)),)
        return replace(self, parts=parts)

    def split(self) -> tuple[Self, Self]:
        """Return the samples to fit to, and those held out.

        Every fourth batch is held out, and where there are fewer than four, or arrays of all, every fourth
        sample.

        Raises:
            InputError: there are fewer than 4 samples, how many cannot be told, or one holds NaN or infinity.
        """
        self._check()
        if not self.whole and len(self.parts) >= HELD_OUT:  # the last of a loader is often a small one
            fit = tuple(part for place, part in enumerate(self.parts) if place % HELD_OUT != 1)
            return replace(self, parts=fit), replace(self, parts=self.parts[1::HELD_OUT])
        with naming("calibration"):
            counts = [part.count for part in self.parts]
        if sum(counts) < HELD_OUT:
            raise InputError(
                f"calibration: expected at least {HELD_OUT} samples, found {sum(counts)}; give more"
            )
        places = torch.arange(sum(counts)) % HELD_OUT == HELD_OUT - 1
        held_out = list(zip(self.parts, torch.split(places, counts), strict=True))
        return (
            replace(self, parts=tuple(part.take(~out) for part, out in held_out if not out.all())),
            replace(self, parts=tuple(part.take(out) for part, out in held_out if out.any())),
        )

    def _check(self) -> None:
        """Refuse NaN and infinity. Negative infinity passes, which masks are made of: where it reaches a
        layer, `MomentSums` refuses it."""
        for place, part in enumerate(self.parts):
            where = "" if self.whole else f"batch {place}, "
            for name, tensor in zip(part.names or range(len(part.tensors)), part.tensors, strict=True):
                wrong = tensor.isnan() | tensor.isposinf() if tensor.is_floating_point() else None
                if wrong is None or not wrong.any():
                    continue
                axis = _told_axis(part, tensor)
                if axis is None:
                    found = f"{where}{int(wrong.sum())} of {wrong.numel()} numbers"
                else:
                    rows = wrong.movedim(axis, 0).flatten(1).any(1) if wrong.dim() > 1 else wrong
                    found = (
                        f"{where}sample {int(rows.nonzero()[0, 0])}; {int(rows.sum())} of {len(rows)} are so"
                    )
                raise InputError(
                    f"calibration: input {name}: expected finite numbers, found NaN or infinity in {found}; "
                    "mend or leave out"
                )


def _spread_over(count: int, most: int) -> Tensor:
    """So many places of `count`, spread over all; any first few of them are spread as well."""
    order = torch.randperm(most, generator=torch.Generator().manual_seed(0))
    return order * count // most


def rows_of(inputs: Inputs) -> int:
    """How many samples there are in a batch; 1 where that cannot be told."""
    try:
        return inputs.count
    except InputError:
        return 1


def batch_of_one(inputs: Inputs, which: Sequence[bool]) -> Inputs:
    """Put an axis before those of `which` tensors, for the one sample that they are."""
    tensors = [tensor[None] if wider else tensor for tensor, wider in zip(inputs.tensors, which, strict=True)]
    return replace(inputs, tensors=tuple(tensors), known_axes=tuple(0 if wider else None for wider in which))


def _told_axis(part: Inputs, tensor: Tensor) -> int | None:
    try:
        return next(axis for own, axis in zip(part.tensors, part.axes, strict=True) if own is tensor)
    except InputError:
        return None


def _alike(one: Inputs, other: Inputs) -> bool:
    """Whether two batches may be run as one: their number of samples alone differs, and what is the same for
    all samples of one is so for those of the other."""
    try:
        axes = one.axes
        if axes != other.axes:
            return False
    except InputError:
        return False
    return (
        any(axis is not None for axis in axes)
        and (one.names, one.structure) == (other.names, other.structure)
        and all(map(_fit, one.tensors, other.tensors, axes))
    )


def _fit(one: Tensor, other: Tensor, axis: int | None) -> bool:
    if one.dtype != other.dtype or one.dim() != other.dim():
        return False
    if axis is None:
        return torch.equal(one, other)
    pairs = enumerate(zip(one.shape, other.shape, strict=True))
    return all(size == found for place, (size, found) in pairs if place != axis)


def _join(group: Sequence[Inputs]) -> Inputs:
    first = group[0]
    if len(group) == 1:
        return first
    tensors = tuple(
        own[0] if axis is None else torch.cat(own, axis)
        for axis, *own in zip(first.axes, *(part.tensors for part in group), strict=True)
    )
    return replace(first, tensors=tensors, known_axes=first.axes)
