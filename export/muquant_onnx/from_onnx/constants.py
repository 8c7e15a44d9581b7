"""Constants of a graph, and the way from one to the operator that computes with it."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import onnx_ir as ir

_FLOATING = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}


def constant(value: ir.Value) -> ir.TensorProtocol | None:
    """Return the tensor of an initializer or of a Constant node's output; None for anything else."""
    node = value.producer()
    if node is None:
        return value.const_value
    if (node.domain, node.op_type) == ("", "Constant") and "value" in node.attributes:
        return node.attributes["value"].as_tensor()
    return None


@dataclass(frozen=True)
class View:
    """How an operator sees a stored tensor.

    Attributes:
        sizes: its shape.
        axes: for each axis the axis of the stored tensor that it is, or None where it is part of one or
            several together.
    """

    sizes: tuple[int, ...]
    axes: tuple[int | None, ...]


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
    view: View | None = View(shape, tuple(range(len(shape))))
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
    old = {
        (math.prod(view.sizes[:axis]), size): stored
        for axis, (size, stored) in enumerate(zip(view.sizes, view.axes, strict=True))
    }
    axes = tuple(old.get((math.prod(sizes[:axis]), size)) for axis, size in enumerate(sizes))
    return View(tuple(sizes), axes)


_VIEWS: dict[str, Callable[[ir.Node, View], View | None]] = {
    "Cast": _cast,
    "Identity": _identity,
    "Reshape": _reshape,
    "Transpose": _transpose,
}
"""Operators through which a weight is still that weight."""
