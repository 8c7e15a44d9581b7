"""How far a network's outputs, and its hidden states, are from the float network's: what is made small."""

import torch
from torch import Tensor

from muquant.compression.answers.classes import adds_up, are_probable, classes_of
from muquant.compression.answers.units import powers, unit_axis

_TINY = 1e-30
_LEAST = 1e-7
"""The smallest probability that is told from zero."""


def output_loss(name: str, exact: Tensor, found: Tensor) -> Tensor:
    """Return `distortion` of a floating-point output so that it has a gradient everywhere, []: in the place
    of an error's share r of the power, at most 1, r / (1 + r). 0 where there is nothing to compare."""
    exact, found = _comparable(exact, found)
    if not exact.numel():
        return found.sum()
    axis, units = classes_of(name, exact), None
    if axis is not None and adds_up(exact, axis):
        exact, found = (each.clamp(min=_LEAST).log() for each in (exact, found))
    elif axis is not None and are_probable(exact):
        axis = None
    if axis is None:
        units = unit_axis(exact)
    else:
        exact, found = (each - each.mean(axis, keepdim=True) for each in (exact, found))
    signal, noise = powers(exact, units), powers(found - exact, units)
    return (noise / (noise + signal).clamp(min=_TINY)).mean().float()


def hidden_loss(exact: Tensor, found: Tensor) -> Tensor:
    """Return the error's power over the signal's, []; 0 where there is nothing to compare."""
    exact, found = _comparable(exact, found)
    return (found - exact).square().sum() / exact.square().sum().clamp(min=_TINY)


def _comparable(exact: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """Both with zeros where `exact` is not finite; empty where the shapes differ."""
    if exact.shape != found.shape:
        return exact[:0], found[:0]
    tells = exact.isfinite()
    return torch.where(tells, exact, 0.0), torch.where(tells, found, 0.0)
