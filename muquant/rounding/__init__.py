"""Rounding methods: how codes are chosen once scale and mu are known. One file each, one line here."""

from collections.abc import Callable

from torch import Tensor

from muquant.errors import InputError
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
    if name not in ROUNDINGS:
        raise InputError(f"rounding {name!r} is unknown; expected one of {', '.join(ROUNDINGS)}")
    return ROUNDINGS[name]


__all__ = ["ROUNDINGS", "Rounding", "nearest", "rounding_method"]
