"""The way from stored tensors to an operator, and what each step of it makes of them.

A new operator through which a weight is still that weight is one function here and one line in `VIEWS`.
"""

import math
import operator
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate, pairwise
from typing import NamedTuple

import onnx_ir as ir

from muquant_onnx.from_onnx.constants import DEEPEST, constant, whole_numbers
from muquant_onnx.from_onnx.views import Part, Shape, View

_FLOATING = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}


class Step(NamedTuple):
    """An operator between a stored tensor and what computes with it.

    Attributes:
        node: it.
        place: of its inputs, the one that the tensor comes by.
        output: of its outputs, the one by which it goes on.
        shapes: of its inputs; None where unknown.
    """

    node: ir.Node
    place: int
    output: int
    shapes: tuple[Shape | None, ...]


def trace_back(value: ir.Value) -> Iterator[tuple[ir.Value, tuple[Step, ...]]]:
    """Yield the values that `value` is a view of, and the steps between them, their side first.

    Several go into a Concat, and into a sum or product of equal sizes. A value that comes by several ways is
    yielded once.
    """
    seen: set[ir.Value] = set()
    shapes: dict[ir.Value, Shape | None] = {}

    def back(value: ir.Value, path: tuple[Step, ...]) -> Iterator[tuple[ir.Value, tuple[Step, ...]]]:
        if value in seen:
            return
        seen.add(value)
        steps = list(_steps(value, shapes)) if len(path) < DEEPEST else []
        for step in steps:
            given = step.node.inputs[step.place]
            assert given is not None
            yield from back(given, (step, *path))
        if not steps:
            yield value, path

    return back(value, ())


def _steps(value: ir.Value, shapes: dict[ir.Value, Shape | None], depth: int = 0) -> Iterator[Step]:
    """Yield the steps that lead to `value`; none where it is no view."""
    node = value.producer()
    if node is None or node.domain or node.op_type not in VIEWS:
        return
    own = tuple(None if each is None else _shape(each, shapes, depth + 1) for each in node.inputs)
    for place in _places(node, own):
        if node.inputs[place] is not None:
            yield Step(node, place, value.index() or 0, own)


def _shape(value: ir.Value, shapes: dict[ir.Value, Shape | None], depth: int) -> Shape | None:
    """Return the shape of what is computed of constants, as far as views tell, and else the graph.

    Args:
        value: it.
        shapes: that are known; gets those that are found.
        depth: how many operators behind it have been looked through.
    """
    if value not in shapes and depth <= DEEPEST:
        tensor = constant(value)
        found = None if tensor is None else tuple(tensor.shape.numpy())
        for step in _steps(value, shapes, depth):
            shape = step.shapes[step.place]
            view = None if shape is None else view_through(shape, [step])
            found = found or (None if view is None else view.sizes)
        if found is None and value.shape is not None and value.shape.is_static():
            found = tuple(value.shape.numpy())
        shapes[value] = found
    return shapes.get(value)


def view_through(shape: tuple[int, ...], path: Sequence[Step]) -> View | None:
    """Return how a tensor of `shape` looks behind the steps of `path`; None where that is not constant."""
    view: View | None = View(shape, tuple((Part(axis, 1, size),) for axis, size in enumerate(shape)))
    for step in path:
        if view is not None:
            view = VIEWS[step.node.op_type](step, view)
    return view


def _identity(_: Step, view: View) -> View:
    return view


def _cast(step: Step, view: View) -> View | None:
    return view if step.node.attributes.get_int("to", 0) in _FLOATING else None


def _transpose(step: Step, view: View) -> View | None:
    order = step.node.attributes.get_ints("perm", range(len(view.sizes))[::-1])
    if sorted(order) != list(range(len(view.sizes))):
        return None
    return _ordered(view, order)


def _reshape(step: Step, view: View) -> View | None:
    wanted = _numbers(step, 1)
    if wanted is None:
        return None
    kept = dict(enumerate(view.sizes))  # 0 keeps a size; of weights, which are not empty, none is 0
    sizes = [size or kept.get(axis, 0) for axis, size in enumerate(wanted)]
    known = max(-math.prod(sizes), 1)
    return _reshaped(view, [math.prod(view.sizes) // known if size == -1 else size for size in sizes])


def _flatten(step: Step, view: View) -> View | None:
    axis = _axis(step, view, 1, last=len(view.sizes))
    if axis is None:
        return None
    return _reshaped(view, [math.prod(view.sizes[:axis]), math.prod(view.sizes[axis:])])


def _reshaped(view: View, sizes: Sequence[int]) -> View | None:
    if math.prod(sizes) != math.prod(view.sizes):
        return None
    ends = list(accumulate(sizes, operator.mul, initial=1))
    axes = tuple(view.cut(start, stop) for start, stop in pairwise(ends))
    return View(tuple(sizes), axes, view.picked)


def _squeeze(step: Step, view: View) -> View | None:
    rank = len(view.sizes)
    named = _numbers(step, 1, [axis for axis, size in enumerate(view.sizes) if size == 1])
    if named is None or any(not -rank <= axis < rank or view.sizes[axis] != 1 for axis in named):
        return None
    gone = {axis % rank for axis in named}
    return _ordered(view, [axis for axis in range(rank) if axis not in gone])


def _unsqueeze(step: Step, view: View) -> View | None:
    named = _numbers(step, 1)
    if named is None:
        return None
    rank = len(view.sizes) + len(named)
    new, old = {axis % rank for axis in named}, iter(zip(view.sizes, view.axes, strict=True))
    if len(new) != len(named):
        return None
    both = [(1, ()) if axis in new else next(old) for axis in range(rank)]
    return replace(view, sizes=tuple(size for size, _ in both), axes=tuple(parts for _, parts in both))


def _slice(step: Step, view: View) -> View | None:
    starts, ends = _numbers(step, 1), _numbers(step, 2)
    axes = None if starts is None else _numbers(step, 3, range(len(starts)))
    strides = None if starts is None else _numbers(step, 4, [1] * len(starts))
    if starts is None or ends is None or axes is None or strides is None or 0 in strides:
        return None
    for axis, start, end, stride in zip(axes, starts, ends, strides, strict=True):
        if not -len(view.sizes) <= axis < len(view.sizes):
            return None
        places = range(view.sizes[axis])[start:end:stride]
        place = axis % len(view.sizes)
        view = view if places == range(view.sizes[axis]) else view.along(place, len(places))
    return view


def _split(step: Step, view: View) -> View | None:
    axis, outputs = _axis(step, view), len(step.node.outputs)
    if axis is None:
        return None
    each = -(-view.sizes[axis] // outputs)
    equal = [min(each, view.sizes[axis] - each * place) for place in range(outputs)]
    sizes = _numbers(step, 1, equal)
    return None if sizes is None else view.along(axis, sizes[step.output])


def _concat(step: Step, view: View) -> View | None:
    axis = _axis(step, view)
    if axis is None or any(shape is None or len(shape) != len(view.sizes) for shape in step.shapes):
        return None
    size = sum(shape[axis] for shape in step.shapes if shape is not None)
    return view if size == view.sizes[axis] else view.along(axis, size)


def _gather(step: Step, view: View) -> View | None:
    axis, indices = _axis(step, view), whole_numbers(step.node.inputs[1])
    if axis is None or indices is None or indices.ndim > 1:
        return None
    taken = view.along(axis, indices.size)
    if indices.ndim:
        return taken
    return _ordered(taken, [each for each in range(len(view.sizes)) if each != axis])


def _expand(step: Step, view: View) -> View | None:
    wanted = _numbers(step, 1)
    return None if wanted is None else _broadcast(view, wanted)


def _elementwise(step: Step, view: View) -> View | None:
    for shape in step.shapes:
        grown = view if shape is None else _broadcast(view, shape)
        if grown is None:
            return None
        view = grown
    return view


def _broadcast(view: View, shape: Sequence[int]) -> View | None:
    rank = max(len(view.sizes), len(shape))
    new = rank - len(view.sizes)
    sizes, other = [*[1] * new, *view.sizes], [*[1] * (rank - len(shape)), *shape]
    if any(1 not in (one, two) and one != two for one, two in zip(sizes, other, strict=True)):
        return None
    both = tuple(two if one == 1 else one for one, two in zip(sizes, other, strict=True))
    return View(both, ((),) * new + view.axes, view.picked)


def _ordered(view: View, order: Sequence[int]) -> View:
    """The view with these of its axes, in this order."""
    return replace(
        view, sizes=tuple(view.sizes[axis] for axis in order), axes=tuple(view.axes[axis] for axis in order)
    )


def _axis(step: Step, view: View, default: int = 0, last: int | None = None) -> int | None:
    """Return the axis that an operator names, counted from the front; None where there is no such."""
    rank, axis = len(view.sizes), step.node.attributes.get_int("axis", default)
    axis += rank if axis < 0 else 0
    return axis if 0 <= axis <= (rank - 1 if last is None else last) else None


def _numbers(step: Step, place: int, default: Sequence[int] | None = None) -> list[int] | None:
    """Return the integers of an input in one axis, or `default` where it is left out; None where unknown."""
    value = step.node.inputs[place] if place < len(step.node.inputs) else None
    if value is None:
        return None if default is None else list(default)
    found = whole_numbers(value)
    return None if found is None or found.ndim != 1 else [int(number) for number in found]


VIEWS: dict[str, Callable[[Step, View], View | None]] = {
    "Add": _elementwise,
    "Cast": _cast,
    "Concat": _concat,
    "Div": _elementwise,
    "Expand": _expand,
    "Flatten": _flatten,
    "Gather": _gather,
    "Identity": _identity,
    "Mul": _elementwise,
    "Neg": _identity,
    "Reshape": _reshape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Sub": _elementwise,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
    "Where": _elementwise,
}
"""Operators through which a weight is still that weight: some of it, in another order or shape, scaled,
masked, or part of another one."""


_TERMS = {"Add", "Div", "Mul", "Sub", "Where"}


def _places(node: ir.Node, shapes: Sequence[Shape | None]) -> Sequence[int]:
    """Return the inputs that a weight may come by."""
    if node.op_type == "Concat":
        return range(len(shapes))
    if node.op_type not in _TERMS:
        return [0] if shapes else []
    terms = {"Div": [0], "Where": [1, 2]}.get(node.op_type, [0, 1])  # others scale, shift or mask the largest
    sizes = {place: math.prod(shapes[place] or (0,)) for place in terms if place < len(shapes)}
    return [place for place, size in sizes.items() if size == max(sizes.values())]
