"""How far a network's outputs, and its hidden states, are from the float network's: what is made small."""

import math

import torch
from torch import Tensor

from muquant.compression.answers.classes import adds_up, are_probable, classes_of
from muquant.compression.answers.distortion import LEAST
from muquant.compression.answers.units import powers, unit_axis

_TINY = 1e-30


def output_loss(name: str, exact: Tensor, found: Tensor) -> Tensor:
    """Return `distortion` of a floating-point output so that it has a gradient everywhere, []: of a class
    that counts all of the error does, and r / (1 + r) takes the place of an error's share r of the power. 0
    where there is nothing to compare."""
    exact, found = _comparable(exact, found)
    if not exact.numel():
        return found.sum()
    axis, units = classes_of(name, exact), None
    if axis is not None and adds_up(exact, axis):
        exact, found = _above_least(exact.clamp(min=_TINY).log(), found.clamp(min=_TINY).log())
    elif axis is not None and not are_probable(exact):
        exact, found = _above_least(exact.log_softmax(axis), found.log_softmax(axis))
    else:
        units = unit_axis(exact)
    signal, noise = powers(exact, units), powers(found - exact, units)
    return (noise / (noise + signal).clamp(min=_TINY)).mean().float()


def _above_least(exact: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of probabilities over the least that counts, 0 where neither does."""
    exact, found = exact - math.log(LEAST), found - math.log(LEAST)
    return exact.clamp(min=0), torch.where(exact > 0, found, found.clamp(min=0))


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
