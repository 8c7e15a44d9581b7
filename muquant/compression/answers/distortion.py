"""How far the answers of a network are from another's: one figure, to be made small."""

import math

import torch
from torch import Tensor

from muquant.compression.answers.classes import adds_up, are_probable, classes_of
from muquant.compression.answers.units import balanced, powers, unit_axis

LEAST = 1e-4
"""The smallest probability that counts."""
_TINY = 1e-30


def distortion(name: str, exact: Tensor, found: Tensor) -> float | None:
    """Return how far an output is from the float network's: the error's power over the signal's.

    Where it looks like logits or probabilities of classes (`classes_of`) these are powers of the logarithms
    of probabilities over the least one that counts: the many classes that nobody expects do not matter. Few
    samples tell that figure better than a divergence, to which only the answers count of which the network is
    least sure. Otherwise each unit counts for itself (`unit_axis`), and is lost at most once. Of integers it
    is the share that differs.

    Args:
        name: of the output.
        exact: the float network's, of any shape and type.
        found: the other's.

    Returns:
        0 or more; None where the shapes differ, or there is nothing to compare.
    """
    if exact.shape != found.shape or not exact.numel():
        return None
    if exact.is_complex():
        exact, found = torch.view_as_real(exact), torch.view_as_real(found)
    if not exact.is_floating_point():
        return float((exact != found).double().mean())
    exact, found = exact.double(), found.double()
    tells = exact.isfinite()
    if not tells.any():
        return None
    exact, found = torch.where(tells, exact, 0.0), torch.where(tells, found, 0.0)
    axis = classes_of(name, exact)
    if axis is not None and adds_up(exact, axis):
        return _of_classes(exact.log(), found.clamp(min=0).log())
    if axis is not None and not are_probable(exact):
        return _of_classes(exact.log_softmax(axis), found.log_softmax(axis))
    units = unit_axis(exact)
    return balanced(powers(exact, units), powers((exact - found).nan_to_num(torch.inf), units))


def _of_classes(exact: Tensor, found: Tensor) -> float:
    """That of logarithms of probabilities; what is no number is as if nothing was expected."""
    exact, found = ((each - math.log(LEAST)).nan_to_num(0.0).clamp(min=0) for each in (exact, found))
    signal, noise = (float(powers(each, None)) for each in (exact, exact - found))
    return noise / signal


def compared(name: str, exact: Tensor, found: Tensor) -> tuple[Tensor, Tensor, int | None]:
    """Return what `distortion` compares of a floating-point output, so that it has a gradient, and the axis
    of its units; of a class that counts all of the error does. Empty where the shapes differ.

    Args:
        name: of the output.
        exact: the float network's.
        found: the other's.
    """
    exact, found = comparable(exact, found)
    if not exact.numel():
        return exact, found, None
    axis = classes_of(name, exact)
    if axis is not None and adds_up(exact, axis):
        return *_above_least(exact.clamp(min=_TINY).log(), found.clamp(min=_TINY).log()), None
    if axis is not None and not are_probable(exact):
        return *_above_least(exact.log_softmax(axis), found.log_softmax(axis)), None
    return exact, found, unit_axis(exact)


def comparable(exact: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """Return both with zeros where `exact` is not finite; empty where the shapes differ."""
    if exact.shape != found.shape:
        return exact.flatten()[:0], found.flatten()[:0]
    tells = exact.isfinite()
    return torch.where(tells, exact, 0.0), torch.where(tells, found, 0.0)


def residual(name: str, exact: Tensor, found: Tensor) -> Tensor:
    """Return numbers whose sum of squares is `distortion` as far as that is small; it has a gradient.

    Args:
        name: of a floating-point output.
        exact: the float network's.
        found: the other's, of the same shape.
    """
    exact, found, units = compared(name, exact, found)
    signal = powers(exact, units).clamp(min=_TINY)
    shape = [1] * exact.dim()
    if units is not None:
        shape[units] = -1
    return (found - exact) * (len(signal) * signal).rsqrt().to(found).reshape(shape)


def _above_least(exact: Tensor, found: Tensor) -> tuple[Tensor, Tensor]:
    """Logarithms of probabilities over the least that counts, 0 where neither does."""
    exact, found = exact - math.log(LEAST), found - math.log(LEAST)
    return exact.clamp(min=0), torch.where(exact > 0, found, found.clamp(min=0))
