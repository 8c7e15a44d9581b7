"""Which parts of a weight are its output channels: for a linear layer one axis, for others several."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self

from muquant.base.errors import InputError

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Channels:
    """Which weights belong to one output channel, whatever the shape.

    Most layers have one axis of channels. Stacked matrices [experts, inputs, outputs] have two, (0, 2): an
    expert and an output. A transposed convolution in groups is stored as [groups * inputs, outputs, ...]: its
    channels are (group, output), so axis 0 is cut into groups, and the group comes first.

    The weight with axis 0 cut, [groups, inputs, outputs, ...], is the blocked one; without groups it is the
    weight. Channels are numbered in row-major order of the blocked weight's axes of channels, the inputs of
    each in that of the others.

    Attributes:
        axes: of the weight that are channels, ascending.
        groups: runs that axis 0 is cut into, each a channel of its own. With more than one, axis 0 is not
            among `axes`, which may be none then.

    Raises:
        InputError: they are not as said.
    """

    axes: tuple[int, ...] = (0,)
    groups: int = 1

    def __post_init__(self) -> None:
        if type(self.groups) is not int or self.groups < 1:
            raise InputError(f"channel groups {self.groups!r}; expected a whole number from 1 up")
        cut, whole = self.groups > 1, all(type(axis) is int for axis in self.axes)
        if not whole or list(self.axes) != sorted({*self.axes}) or min(self.axes, default=cut) < cut:
            raise InputError(f"channel axes {list(self.axes)}; expected ascending numbers from {int(cut)} up")
        if not self.axes and not cut:
            raise InputError("no channel axes; expected at least one, or groups")

    @classmethod
    def of(cls, axis: "int | Channels") -> "Channels":
        """Return the channels that a number means: one axis."""
        return axis if isinstance(axis, Channels) else cls((axis,))

    @classmethod
    def from_entry(cls, entry: Mapping[str, Any]) -> Self:
        """Read what `to_entry` wrote.

        Raises:
            InputError: it is malformed.
        """
        axes, groups = entry["channel_axis"], entry.get("channel_groups", 1)
        return cls(tuple(axes) if isinstance(axes, list) else (axes,), groups)

    def to_entry(self) -> dict[str, Any]:
        """Return what a file says of them, JSON values: one axis as a number, as it always was.

        All else is a list, so that readers that know one axis only refuse it.
        """
        if self.axis is not None:
            return {"channel_axis": self.axis}
        groups = {"channel_groups": self.groups} if self.groups > 1 else {}
        return {"channel_axis": list(self.axes), **groups}

    @property
    def axis(self) -> int | None:
        """The one axis that is all of the channels; None where it takes more to say."""
        return self.axes[0] if len(self.axes) == 1 and self.groups == 1 else None

    def check(self, shape: Shape) -> None:
        """Raise `InputError` where a weight of `shape` has not these channels."""
        if not shape or max(self.axes, default=0) >= len(shape):
            raise InputError(
                f"channel axes {list(self.axes)} of a weight of shape {shape}; expected axes of it"
            )
        if shape[0] % self.groups:
            raise InputError(
                f"{self.groups} groups of a weight of shape {shape}; expected a divisor of axis 0"
            )

    def simplest(self, shape: Shape) -> "Channels":
        """Return the same channels of a weight of `shape` without groups where axis 0 is all of them."""
        alone = self.groups > 1 and self.groups == shape[0]
        return Channels((0, *self.axes)) if alone else self

    def count(self, shape: Shape) -> int:
        """How many there are in a weight of `shape`."""
        return self.groups * math.prod(shape[axis] for axis in self.axes)

    def inputs(self, shape: Shape) -> int:
        """How many weights each has."""
        channels = {0, *self.axes} if self.groups > 1 else {*self.axes}
        others = math.prod(size for axis, size in enumerate(shape) if axis not in channels)
        return others * shape[0] // self.groups if self.groups > 1 else others

    def moments(self, shape: Shape) -> int:
        """How many numbers the second moments of a weight's inputs are at most: one matrix for each matrix
        of a stack, or for each group."""
        last = self.blocked(shape)[self.blocked_axes[-1]]
        return self.count(shape) // max(last, 1) * self.inputs(shape) ** 2

    def blocked(self, shape: Shape) -> Shape:
        """Return the shape of the blocked weight."""
        return (self.groups, shape[0] // self.groups, *shape[1:]) if self.groups > 1 else shape

    @property
    def blocked_axes(self) -> tuple[int, ...]:
        """The blocked weight's axes of channels."""
        return (0, *(axis + 1 for axis in self.axes)) if self.groups > 1 else self.axes

    def order(self, shape: Shape) -> tuple[int, ...]:
        """Return the blocked weight's axes with those of channels first: its transposition to a matrix."""
        rank = len(self.blocked(shape))
        return (*self.blocked_axes, *(axis for axis in range(rank) if axis not in self.blocked_axes))

    def back(self, shape: Shape) -> tuple[int, ...]:
        """Return the transposition that undoes `order`."""
        order = self.order(shape)
        return tuple(sorted(range(len(order)), key=order.__getitem__))

    def ordered(self, shape: Shape) -> Shape:
        """Return the blocked weight's shape with the axes of channels first."""
        blocked = self.blocked(shape)
        return tuple(blocked[axis] for axis in self.order(shape))

    def wide(self, shape: Shape) -> Shape:
        """Return the shape in which one number for each channel broadcasts against the blocked weight."""
        blocked = self.blocked(shape)
        return tuple(size if axis in self.blocked_axes else 1 for axis, size in enumerate(blocked))


ROWS = Channels()
"""Those of most layers: axis 0."""
