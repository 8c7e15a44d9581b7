"""How an operator sees a stored tensor, and which of its numbers are then one output channel."""

import math
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from muquant.format.channels import Channels

Shape = tuple[int, ...]
T = TypeVar("T")


class Part(NamedTuple):
    """A part of an axis of a stored tensor: with the axis as [before, size, behind], its middle.

    Attributes:
        axis: of the stored tensor.
        before: runs of the axis, in each of which the part counts anew.
        size: of the part; the whole axis has its size, and one run.
        loose: whether it is seen by other places: some of them, some again, or in another order.
    """

    axis: int
    before: int
    size: int
    loose: bool = False


@dataclass(frozen=True)
class View:
    """How an operator sees a stored tensor.

    Attributes:
        sizes: its shape.
        axes: for each axis the parts of stored axes that it is made of, the slowest first; None where they
            are no such parts.
        picked: parts of stored axes of which one place is seen.
    """

    sizes: tuple[int, ...]
    axes: tuple[tuple[Part, ...] | None, ...]
    picked: tuple[Part, ...] = ()

    def runs_along(self, axis: int) -> bool:
        """Whether an axis runs along all that it is made of, place by place."""
        return _runs_along(self.sizes[axis], self.axes[axis])

    @property
    def whole(self) -> bool:
        """Whether all of the tensor is seen, and each number once."""
        return not self.picked and all(map(self.runs_along, range(len(self.sizes))))

    def along(self, axis: int, size: int) -> "View":
        """The view with `size` places of an axis, any of them; of one place there is no axis left."""
        parts, picked = self.axes[axis], self.picked
        if parts is not None:
            parts = tuple(part._replace(loose=True) for part in parts)
            if size == 1 < self.sizes[axis]:
                parts, picked = (), (*picked, *parts)
        return View(put(self.sizes, axis, size), put(self.axes, axis, parts), picked)

    def cut(self, start: int, stop: int) -> tuple[Part, ...] | None:
        """Return what an axis of size stop / start would be made of, were it there with `start` runs before
        it."""
        found: list[Part] = []
        before = 1
        for size, parts in zip(self.sizes, self.axes, strict=True):
            if (before, before * size) == (start, stop):
                return parts
            if parts is None or not _runs_along(size, parts):
                if before < stop and start < before * size:
                    return None
                before *= size
                continue
            for part in parts:
                low, high = max(before, start), min(before * part.size, stop)
                if low < high:
                    if low % before or high % low or before * part.size % high:
                        return None
                    found.append(Part(part.axis, part.before * (low // before), high // low))
                before *= part.size
        return tuple(found)


class StoredChannels(NamedTuple):
    """The output channels of an operator, in the tensor that its weight is a view of.

    Attributes:
        channels: of the tensor.
        in_order: whether the operator numbers them alike.
    """

    channels: Channels
    in_order: bool


def stored_channels(view: View, channels: Channels, shape: tuple[int, ...]) -> StoredChannels | None:
    """Return which numbers of a stored tensor of `shape` are one channel, where in a view of it `channels`
    say so; None where that is more than `Channels` can say."""
    seen = [view.axes[axis] for axis in channels.axes]
    if channels.groups > 1:
        seen.insert(0, None if view.sizes[0] % channels.groups else view.cut(1, channels.groups))
    parts = list(view.picked)
    for each in seen:
        if each is None:
            return None
        parts += each
    axes, groups = [], 1
    for axis, own in groupby(sorted(parts), lambda part: part.axis):
        leading = 1
        for part in own:
            if part.before != leading:
                return None
            leading *= part.size
        if leading == shape[axis]:
            axes.append(axis)
        elif axis == 0:
            groups = leading
        else:
            return None
    if not axes and groups == 1:  # an axis of size 1 that a Reshape has put in: one channel
        if 1 not in shape:
            return None
        axes.append(shape.index(1))
    axes = [axis for axis in axes if shape[axis] > 1 or groups > 1] or axes[:1]
    counted = [part for part in parts if part.size > 1]
    return StoredChannels(Channels(tuple(axes), groups), view.whole and counted == sorted(counted))


def finer_channels(view: View, channels: Channels, shape: tuple[int, ...]) -> StoredChannels | None:
    """Return channels of a stored tensor of `shape`, each within one channel that `channels` say of a view of
    it, where `stored_channels` has no word for those; None where hardly a number shares one with others."""
    seen = [view.axes[axis] for axis in channels.axes]
    if channels.groups > 1:
        seen.append(view.axes[0])
    parts = [*view.picked, *(part for each in seen for part in each or ())]
    axes = tuple(sorted({part.axis for part in parts} or {0}))
    found = Channels(axes)
    fits = None not in seen and found.inputs(shape) > 1
    return StoredChannels(found, in_order=False) if fits else None


def input_order(view: View, channels: Channels) -> NDArray[np.int64] | None:
    """Return for each input of a channel of a stored tensor, all of which is seen, which input it is in a
    view of it with `channels`; None where its axes are torn."""
    axes: list[tuple[Part, ...] | None] = [
        parts for axis, parts in enumerate(view.axes) if axis not in channels.axes
    ]
    if channels.groups > 1:
        axes[0] = view.cut(channels.groups, view.sizes[0])
    parts: list[Part] = []
    for each in axes:
        if each is None:
            return None
        parts += each
    turn = sorted(range(len(parts)), key=parts.__getitem__)
    sizes = [part.size for part in parts]
    return np.arange(math.prod(sizes)).reshape(sizes).transpose(turn).ravel()


def _runs_along(size: int, parts: tuple[Part, ...] | None) -> bool:
    if parts is None:
        return True
    return math.prod(part.size for part in parts) == size and not any(part.loose for part in parts)


def put(values: tuple[T, ...], place: int, new: T) -> tuple[T, ...]:
    """Return `values` with another one at `place`."""
    return (*values[:place], new, *values[place + 1 :])
