"""Padding of convolutions and pools."""

import math
from collections.abc import Sequence

import onnx_ir as ir
from torch import Tensor
from torch.nn import functional

Sides = list[tuple[int, int]]
"""What is padded before and behind along each axis."""


class Geometry:
    """How a kernel moves over a picture.

    Attributes:
        kernel: its sizes.
        strides: between two places of it.
        dilations: between two of its numbers.
        pads: around the picture, for pictures of `sizes`.
    """

    def __init__(self, node: ir.Node, sizes: Sequence[int], kernel: Sequence[int]) -> None:
        attributes, ones = node.attributes, [1] * len(kernel)
        self.kernel = list(kernel)
        self.strides = list(attributes.get_ints("strides", ones))
        self.dilations = list(attributes.get_ints("dilations", ones))
        how = attributes.get_string("auto_pad", "NOTSET")
        pads = list(attributes.get_ints("pads", [0] * 2 * len(kernel)))
        if how.startswith("SAME"):
            places = zip(sizes, self.kernel, self.strides, self.dilations, strict=True)
            total = [
                max((math.ceil(size / step) - 1) * step + (width - 1) * apart + 1 - size, 0)
                for size, width, step, apart in places
            ]
            self.pads = _shared_out(total, more_behind=how == "SAME_UPPER")
        elif how == "VALID":
            self.pads = [(0, 0)] * len(kernel)
        else:
            self.pads = list(zip(pads[: len(kernel)], pads[len(kernel) :], strict=True))

    @property
    def same_on_both_sides(self) -> list[int] | None:
        """The padding of each axis, None where it differs between its sides."""
        alike = all(before == behind for before, behind in self.pads)
        return [before for before, _ in self.pads] if alike else None


def transposed_pads(node: ir.Node, sizes: Sequence[int], kernel: Sequence[int]) -> Sides:
    """Return what a transposed convolution of a picture of `sizes` cuts away; where it is negative, adds."""
    geometry, attributes = Geometry(node, sizes, kernel), node.attributes
    extra = attributes.get_ints("output_padding", [0] * len(kernel))
    how, wanted = attributes.get_string("auto_pad", "NOTSET"), attributes.get_ints("output_shape", [])
    pads = geometry.pads
    if wanted or how.startswith("SAME"):
        sizes_after = wanted[-len(kernel) :] or [
            size * step for size, step in zip(sizes, geometry.strides, strict=True)
        ]
        places = zip(sizes, sizes_after, kernel, geometry.strides, geometry.dilations, extra, strict=True)
        total = [
            max((size - 1) * step + more + (width - 1) * apart + 1 - after, 0)
            for size, after, width, step, apart, more in places
        ]
        pads = _shared_out(total, more_behind=how == "SAME_UPPER")
    return [(before, behind - more) for (before, behind), more in zip(pads, extra, strict=True)]


def _shared_out(total: Sequence[int], *, more_behind: bool) -> Sides:
    """Return padding before and behind, which differ by one where it is odd."""
    halves = [(each // 2, each - each // 2) for each in total]
    return halves if more_behind else [(more, less) for less, more in halves]


def padded(x: Tensor, pads: Sides, value: float = 0.0) -> Tensor:
    """Pad the last axes of `x`; negative numbers cut."""
    if not any(map(any, pads)):
        return x
    return functional.pad(x, [side for each in reversed(pads) for side in each], value=value)
