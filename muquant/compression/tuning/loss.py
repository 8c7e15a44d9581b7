"""How far a network's outputs, and its hidden states, are from the float network's: what is made small."""

from torch import Tensor

from muquant.compression.answers.distortion import comparable, compared
from muquant.compression.answers.units import powers

_TINY = 1e-30


def output_loss(name: str, exact: Tensor, found: Tensor) -> Tensor:
    """Return `distortion` of a floating-point output so that it has a gradient everywhere, []: of a class
    that counts all of the error does, and r / (1 + r) takes the place of an error's share r of the power. 0
    where there is nothing to compare."""
    exact, found, units = compared(name, exact, found)
    if not exact.numel():
        return found.sum()
    signal, noise = powers(exact, units), powers(found - exact, units)
    return (noise / (noise + signal).clamp(min=_TINY)).mean().float()


def hidden_loss(exact: Tensor, found: Tensor) -> Tensor:
    """Return the error's power over the signal's, []; 0 where there is nothing to compare."""
    exact, found = comparable(exact, found)
    return (found - exact).square().sum() / exact.square().sum().clamp(min=_TINY)
