"""Rounding methods: how codes are chosen. All begin with the nearest levels. One file each, one line here."""

from collections.abc import Callable

from torch import Tensor

from muquant.calibration import Moments
from muquant.registry import look_up
from muquant.rounding.compensated import compensated
from muquant.rounding.nearest import nearest
from muquant.rounding.reconstructed import reconstructed
from muquant.tensor import QuantizedTensor

Refinement = Callable[[Tensor, QuantizedTensor, Moments], QuantizedTensor]
"""(weight, quantized so far, moments of its inputs) -> quantized better, in the same format"""

ROUNDINGS: dict[str, tuple[Refinement, ...]] = {
    "nearest": (),
    "compensated": (compensated,),
    "reconstructed": (compensated, reconstructed),
}
"""Method -> the refinements that follow on `nearest`, each of the outcome of the one before."""


def rounding_method(name: str) -> tuple[Refinement, ...]:
    """Return the refinements of the rounding method called `name`."""
    return look_up("rounding", name, ROUNDINGS)


__all__ = ["ROUNDINGS", "Refinement", "compensated", "nearest", "reconstructed", "rounding_method"]
