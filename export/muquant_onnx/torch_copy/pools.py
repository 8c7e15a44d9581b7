"""Pools, and `Resize`."""

import math
from collections.abc import Callable
from functools import partial

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from muquant_onnx.torch_copy.geometry import Geometry, padded
from muquant_onnx.torch_copy.operator import Operator, refuse

_MAX: dict[int, Callable[..., Tensor]] = {
    1: functional.max_pool1d,
    2: functional.max_pool2d,
    3: functional.max_pool3d,
}
_MEAN: dict[int, Callable[..., Tensor]] = {
    1: functional.avg_pool1d,
    2: functional.avg_pool2d,
    3: functional.avg_pool3d,
}


def _pool_geometry(node: ir.Node, x: Tensor) -> tuple[Geometry, list[int] | None, bool]:
    """Geometry, the padding that torch can do itself, and whether a last, cut window counts."""
    geometry = Geometry(node, x.shape[2:], node.attributes.get_ints("kernel_shape"))
    padding = geometry.same_on_both_sides
    if padding is not None and any(
        2 * pad > size for pad, size in zip(padding, geometry.kernel, strict=True)
    ):
        padding = None
    return geometry, padding, bool(node.attributes.get_int("ceil_mode", 0))


def _max_pool(node: ir.Node, x: Tensor) -> Tensor:
    if len(node.outputs) > 1:
        raise refuse(node, "indices")
    geometry, padding, ceil = _pool_geometry(node, x)
    if padding is None:
        x, padding = padded(x, geometry.pads, -math.inf), [0] * len(geometry.kernel)
    pool = _MAX[len(padding)]
    return pool(x, geometry.kernel, geometry.strides, padding, geometry.dilations, ceil_mode=ceil)


def _average_pool(node: ir.Node, x: Tensor) -> Tensor:
    geometry, padding, ceil = _pool_geometry(node, x)
    if any(apart != 1 for apart in geometry.dilations):
        raise refuse(node, "dilations")
    pool = partial(_MEAN[len(geometry.kernel)], kernel_size=geometry.kernel, stride=geometry.strides)
    all_count = bool(node.attributes.get_int("count_include_pad", 0))
    if padding is not None:
        return pool(x, padding=padding, ceil_mode=ceil, count_include_pad=all_count)
    if ceil:
        raise refuse(node, "ceil_mode and padding that differs between sides")
    mean = pool(padded(x, geometry.pads))
    return mean if all_count else mean / pool(padded(torch.ones_like(x), geometry.pads))


def _global(reduce: Callable[..., Tensor]) -> Operator:
    return lambda _, x: reduce(x, list(range(2, x.dim())), keepdim=True)


def _resize(
    node: ir.Node,
    x: Tensor,
    region: Tensor | None = None,
    scales: Tensor | None = None,
    sizes: Tensor | None = None,
) -> Tensor:
    """Axis by axis: each place looks up its neighbours in what was there before."""
    attributes = node.attributes
    how = attributes.get_string("coordinate_transformation_mode", "half_pixel")
    policy, smooth = (
        attributes.get_string("keep_aspect_ratio_policy", "stretch"),
        attributes.get_int("antialias", 0),
    )
    if how == "tf_crop_and_resize" or smooth or policy != "stretch":
        raise refuse(node, "a region, antialias or a kept aspect ratio")
    del region
    axes = list(attributes.get_ints("axes", range(x.dim())))
    given = None if scales is None or not scales.numel() else [float(scale) for scale in scales.tolist()]
    for place, axis in enumerate(axes):
        size = x.shape[axis]
        if given is not None:
            scale = given[place]
            wanted = math.floor(size * scale)
        else:
            assert sizes is not None
            wanted = int(sizes[place])
            scale = wanted / size
        if wanted != size or scale != 1:
            x = _along(node, x, axis, wanted, scale)
    return x


def _along(node: ir.Node, x: Tensor, axis: int, wanted: int, scale: float) -> Tensor:
    size, places = x.shape[axis], torch.arange(wanted, dtype=torch.float64)
    how = node.attributes.get_string("coordinate_transformation_mode", "half_pixel")
    if how == "asymmetric":
        source = places / scale
    elif how == "align_corners":
        source = places * (size - 1) / max(wanted - 1, 1)
    elif how == "pytorch_half_pixel" and wanted == 1:
        source = torch.zeros_like(places)
    elif how == "half_pixel_symmetric":
        shift = size / 2 * (1 - wanted / (scale * size))
        source = shift + (places + 0.5) / scale - 0.5
    else:
        source = (places + 0.5) / scale - 0.5
    mode = node.attributes.get_string("mode", "nearest")
    if mode == "nearest":
        return _picked(
            x, axis, _nearest(source, node.attributes.get_string("nearest_mode", "round_prefer_floor"))
        )
    if mode != "linear":
        raise refuse(node, f"mode {mode}")
    source = source.clamp(0, size - 1)
    below = source.floor()
    share = (source - below).float().reshape(-1, *[1] * (x.dim() - 1 - axis % x.dim()))
    low, high = _picked(x, axis, below), _picked(x, axis, below + 1)
    return low + share * (high - low)


def _nearest(source: Tensor, how: str) -> Tensor:
    if how == "floor":
        return source.floor()
    if how == "ceil":
        return source.ceil()
    return (source - 0.5).ceil() if how == "round_prefer_floor" else (source + 0.5).floor()


def _picked(x: Tensor, axis: int, places: Tensor) -> Tensor:
    return x.index_select(axis, places.long().clamp(0, x.shape[axis] - 1))


OPERATORS: dict[str, Operator] = {
    "AveragePool": _average_pool,
    "GlobalAveragePool": _global(torch.mean),
    "GlobalMaxPool": _global(torch.amax),
    "MaxPool": _max_pool,
    "Resize": _resize,
}
