"""Rounding methods: how codes are chosen once scale and mu are known. One file each, one line here."""

from collections.abc import Callable

from torch import Tensor

from muquant.registry import look_up
from muquant.rounding.nearest import nearest
from muquant.spec import MuLawSpec
from muquant.tensor import QuantizedTensor

Rounding = Callable[[Tensor, Tensor, MuLawSpec, int], QuantizedTensor]
"""(weight, scale, spec, channel_axis) -> QuantizedTensor"""

ROUNDINGS: dict[str, Rounding] = {
    "nearest": nearest,
}


def rounding_method(name: str) -> Rounding:
    """Return the rounding method called `name`."""
    return look_up("rounding", name, ROUNDINGS)


__all__ = ["ROUNDINGS", "Rounding", "nearest", "rounding_method"]
