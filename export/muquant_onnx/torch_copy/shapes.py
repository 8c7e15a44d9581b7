"""Other shapes and orders of the same numbers, and sizes."""

import math
from collections.abc import Sequence

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from muquant_onnx.torch_copy.geometry import padded
from muquant_onnx.torch_copy.operator import Operator, dtype_of, numbers, refuse


def _shape(node: ir.Node, x: Tensor) -> Tensor:
    sizes = list(x.shape)
    end = node.attributes.get_int("end", len(sizes))
    return torch.tensor(sizes[node.attributes.get_int("start", 0) : end], dtype=torch.int64)


def _size(_: ir.Node, x: Tensor) -> Tensor:
    return torch.tensor(x.numel())


def _reshape(node: ir.Node, x: Tensor, shape: Tensor) -> Tensor:
    sizes = numbers(shape) or []
    if not node.attributes.get_int("allowzero", 0):
        sizes = [size or x.shape[axis] for axis, size in enumerate(sizes)]
    return x.reshape(sizes)


def _flatten(node: ir.Node, x: Tensor) -> Tensor:
    axis = node.attributes.get_int("axis", 1)
    return x.reshape(math.prod(x.shape[:axis]), math.prod(x.shape[axis:]))


def _squeeze(_: ir.Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
    named = numbers(axes)
    if named is None:
        return x.squeeze()
    return x.squeeze([axis % x.dim() for axis in named]) if named else x


def _unsqueeze(_: ir.Node, x: Tensor, axes: Tensor) -> Tensor:
    named = numbers(axes) or []
    rank = x.dim() + len(named)
    for axis in sorted(axis % rank for axis in named):
        x = x.unsqueeze(axis)
    return x


def _transpose(node: ir.Node, x: Tensor) -> Tensor:
    return x.permute(*node.attributes.get_ints("perm", range(x.dim())[::-1]))


def _concat(node: ir.Node, *parts: Tensor) -> Tensor:
    return torch.cat(parts, node.attributes.get_int("axis", 0))


def _split(node: ir.Node, x: Tensor, sizes: Tensor | None = None) -> Sequence[Tensor]:
    axis, each = node.attributes.get_int("axis", 0), numbers(sizes)
    wide = -(-x.shape[axis] // len(node.outputs)) if each is None else each
    return torch.split(x, wide, axis)


def _slice(
    _: ir.Node,
    x: Tensor,
    starts: Tensor,
    ends: Tensor,
    axes: Tensor | None = None,
    steps: Tensor | None = None,
) -> Tensor:
    first, last = numbers(starts) or [], numbers(ends) or []
    along, by = numbers(axes) or range(len(first)), numbers(steps) or [1] * len(first)
    for start, end, axis, step in zip(first, last, along, by, strict=True):
        places = range(x.shape[axis])[start:end:step]
        if step > 0:
            picked: list[slice] = [slice(None)] * x.dim()
            picked[axis] = slice(places.start, max(places.stop, places.start), step)
            x = x[tuple(picked)]
        else:
            x = x.index_select(axis, torch.tensor(list(places), dtype=torch.int64))
    return x


def _expand(_: ir.Node, x: Tensor, shape: Tensor) -> Tensor:
    return torch.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(numbers(shape) or ())))


def _tile(_: ir.Node, x: Tensor, repeats: Tensor) -> Tensor:
    return x.repeat(numbers(repeats) or [])


def _pad(
    node: ir.Node, x: Tensor, pads: Tensor, value: Tensor | None = None, axes: Tensor | None = None
) -> Tensor:
    sides, named = numbers(pads) or [], numbers(axes) or range(x.dim())
    both: list[tuple[int, int]] = [(0, 0)] * x.dim()
    for place, axis in enumerate(named):
        both[axis] = sides[place], sides[len(sides) // 2 + place]
    mode = node.attributes.get_string("mode", "constant")
    if mode == "constant":
        return padded(x, both, 0.0 if value is None else value.item())
    for axis, (before, behind) in enumerate(both):
        if before or behind:
            x = x.index_select(axis, _beyond(x.shape[axis], before, behind, mode, node))
    return x


def _beyond(size: int, before: int, behind: int, mode: str, node: ir.Node) -> Tensor:
    """Which place each place of a padded axis is a copy of."""
    places = torch.arange(-before, size + behind)
    if mode == "edge":
        return places.clamp(0, size - 1)
    if mode == "wrap":
        return places % size
    if mode != "reflect":
        raise refuse(node, f"mode {mode}")
    turn = max(2 * (size - 1), 1)
    around = places % turn
    return torch.minimum(around, turn - around)


def _constant_of_shape(node: ir.Node, shape: Tensor) -> Tensor:
    sizes, value = numbers(shape) or [], node.attributes.get("value")
    if value is None:
        return torch.zeros(sizes)
    tensor = value.as_tensor()
    return torch.full(sizes, tensor.numpy().reshape(-1)[0].item(), dtype=dtype_of(tensor.dtype))


def _range(_: ir.Node, start: Tensor, limit: Tensor, step: Tensor) -> Tensor:
    return torch.arange(start.item(), limit.item(), step.item(), dtype=start.dtype)


def _depth_to_space(node: ir.Node, x: Tensor) -> Tensor:
    size, (count, channels, height, width) = node.attributes.get_int("blocksize"), x.shape
    if node.attributes.get_string("mode", "DCR") == "DCR":
        blocks = x.reshape(count, size, size, -1, height, width).permute(0, 3, 4, 1, 5, 2)
    else:
        blocks = x.reshape(count, -1, size, size, height, width).permute(0, 1, 4, 2, 5, 3)
    return blocks.reshape(count, channels // size**2, height * size, width * size)


def _space_to_depth(node: ir.Node, x: Tensor) -> Tensor:
    size, (count, channels, height, width) = node.attributes.get_int("blocksize"), x.shape
    blocks = x.reshape(count, channels, height // size, size, width // size, size).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(count, channels * size**2, height // size, width // size)


OPERATORS: dict[str, Operator] = {
    "Concat": _concat,
    "ConstantOfShape": _constant_of_shape,
    "DepthToSpace": _depth_to_space,
    "Expand": _expand,
    "Flatten": _flatten,
    "Pad": _pad,
    "Range": _range,
    "Reshape": _reshape,
    "Shape": _shape,
    "Size": _size,
    "Slice": _slice,
    "SpaceToDepth": _space_to_depth,
    "Split": _split,
    "Squeeze": _squeeze,
    "Tile": _tile,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
