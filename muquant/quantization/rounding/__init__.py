"""Rounding methods: how codes are chosen. All begin with the nearest levels. One file each, one line here."""

from collections.abc import Callable

from torch import Tensor

from muquant.base.registry import look_up
from muquant.format.tensor import QuantizedTensor
from muquant.quantization.moments import Moments
from muquant.quantization.rounding.balanced import balanced
from muquant.quantization.rounding.compensated import compensated
from muquant.quantization.rounding.nearest import nearest
from muquant.quantization.rounding.reconstructed import reconstructed

Refinement = Callable[[Tensor, QuantizedTensor, Moments], QuantizedTensor]
"""(weight, quantized so far, moments of its inputs) -> quantized better, in the same format"""

ROUNDINGS: dict[str, Refinement | None] = {
    "nearest": None,
    "balanced": None,
    "compensated": compensated,
    "reconstructed": reconstructed,
}
"""Method -> what it does with the outcome of the methods before it and the moments of the inputs; None for
those that look at the weight alone: `nearest`, where all begin, and `balanced`."""
BLIND = "balanced"
"""The best of those."""


def refinements(name: str) -> dict[str, Refinement]:
    """Return what follows on `nearest` where moments are known, in order, up to the method called `name`."""
    look_up("rounding", name, ROUNDINGS)
    names = list(ROUNDINGS)
    steps = {each: ROUNDINGS[each] for each in names[: names.index(name) + 1]}
    return {each: refine for each, refine in steps.items() if refine is not None}


__all__ = [
    "BLIND",
    "ROUNDINGS",
    "Refinement",
    "balanced",
    "compensated",
    "nearest",
    "reconstructed",
    "refinements",
]
