"""How far the answers of a network are from another's: one figure, to be made small."""

import math

import torch
from torch import Tensor

from muquant.compression.answers.classes import adds_up, are_probable, classes_of
from muquant.compression.answers.units import balanced, powers, unit_axis

LEAST = 1e-4
"""The smallest probability that counts."""


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
