"""Constants of a graph, and the way from one to the operator that computes with it."""

import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, groupby, pairwise
from typing import NamedTuple

import onnx_ir as ir

from muquant.format.channels import Channels

_FLOATING = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}


def constant(value: ir.Value) -> ir.TensorProtocol | None:
    """Return the tensor of an initializer or of a Constant node's output; None for anything else."""
    node = value.producer()
    if node is None:
        return value.const_value
    if (node.domain, node.op_type) == ("", "Constant") and "value" in node.attributes:
        return node.attributes["value"].as_tensor()
    return None


class Part(NamedTuple):
    """A part of an axis of a stored tensor: with the axis as [before, size, behind], its middle.

    Attributes:
        axis: of the stored tensor.
        before: runs of the axis, in each of which the part counts anew.
        size: of the part; the whole axis has its size, and one run.
    """

    axis: int
    before: int
    size: int


@dataclass(frozen=True)
class View:
    """How an operator sees a stored tensor.

    Attributes:
        sizes: its shape.
        axes: for each axis the parts of stored axes that it is made of, the slowest first; None where they
            are no such parts.
    """

    sizes: tuple[int, ...]
    axes: tuple[tuple[Part, ...] | None, ...]

    def cut(self, start: int, stop: int) -> tuple[Part, ...] | None:
        """Return what an axis of size stop / start would be made of, were it there with `start` runs before
        it."""
        found: list[Part] = []
        before = 1
        for size, parts in zip(self.sizes, self.axes, strict=True):
            if parts is None:
                if before < stop and start < before * size:
                    return None
                before *= size
                continue
            if (before, before * size) == (start, stop):
                return parts
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
    parts: list[Part] = []
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
    counted = [part for part in parts if part.size > 1]
    return StoredChannels(Channels(tuple(axes), groups), counted == sorted(counted))


def trace_back(value: ir.Value) -> tuple[ir.Value, tuple[ir.Node, ...]]:
    """Return the value that `value` is a view of, and the nodes between them, its side first."""
    path: list[ir.Node] = []
    while True:
        node = value.producer()
        if node is None or node.domain or node.op_type not in _VIEWS or node.inputs[0] is None:
            return value, tuple(reversed(path))
        path.append(node)
        value = node.inputs[0]


def view_through(shape: tuple[int, ...], path: tuple[ir.Node, ...]) -> View | None:
    """Return how a tensor of `shape` looks behind the nodes of `path`; None where that is not constant."""
    view: View | None = View(shape, tuple((Part(axis, 1, size),) for axis, size in enumerate(shape)))
    for node in path:
        if view is not None:
            view = _VIEWS[node.op_type](node, view)
    return view


def _identity(_: ir.Node, view: View) -> View:
    return view


def _cast(cast: ir.Node, view: View) -> View | None:
    return view if cast.attributes.get_int("to", 0) in _FLOATING else None


def _transpose(transpose: ir.Node, view: View) -> View | None:
    order = transpose.attributes.get_ints("perm", range(len(view.sizes))[::-1])
    if sorted(order) != list(range(len(view.sizes))):
        return None
    return View(tuple(view.sizes[axis] for axis in order), tuple(view.axes[axis] for axis in order))


def _reshape(reshape: ir.Node, view: View) -> View | None:
    wanted = None if reshape.inputs[1] is None else constant(reshape.inputs[1])
    if wanted is None:
        return None
    kept = dict(enumerate(view.sizes))  # 0 keeps a size; of weights, which are not empty, none is 0
    sizes = [int(size) or kept.get(axis, 0) for axis, size in enumerate(wanted.numpy())]
    known = max(-math.prod(sizes), 1)
    sizes = [math.prod(view.sizes) // known if size == -1 else size for size in sizes]
    if math.prod(sizes) != math.prod(view.sizes):
        return None
    ends = list(accumulate(sizes, operator.mul, initial=1))
    return View(tuple(sizes), tuple(view.cut(start, stop) for start, stop in pairwise(ends)))


_VIEWS: dict[str, Callable[[ir.Node, View], View | None]] = {
    "Cast": _cast,
    "Identity": _identity,
    "Reshape": _reshape,
    "Transpose": _transpose,
}
"""Operators through which a weight is still that weight."""
