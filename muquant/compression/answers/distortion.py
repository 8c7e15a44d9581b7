"""How far the answers of a network are from another's: one figure, to be made small."""

import torch
from torch import Tensor

from muquant.compression.answers.classes import adds_up, are_probable, classes_of
from muquant.compression.answers.units import balanced, powers, unit_axis

_LEAST = 1e-12
"""The smallest probability that is told from zero."""


def distortion(name: str, exact: Tensor, found: Tensor) -> float | None:
    """Return how far an output is from the float network's.

    Where it looks like logits or probabilities of classes (`classes_of`) that is the Kullback-Leibler
    divergence from what the float network answers to what the other does, in nat, averaged over the answers.
    Of others it is the error's power over the signal's, each unit for itself (`unit_axis`) and at most 1, on
    average. Of integers it is the share that differs.

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
    if axis is not None and (adds_up(exact, axis) or not are_probable(exact)):
        return _divergence(exact, found, axis)
    units = unit_axis(exact)
    return balanced(powers(exact, units), powers((exact - found).nan_to_num(torch.inf), units))


def _divergence(exact: Tensor, found: Tensor, axis: int) -> float:
    """That between classes; what is no number counts as a class that is ruled out."""
    if adds_up(exact, axis):
        p, q = exact.clamp(min=_LEAST).log(), found.nan_to_num(0.0).clamp(min=_LEAST).log()
        q = q - q.logsumexp(axis, keepdim=True)
        p = p - p.logsumexp(axis, keepdim=True)
    else:
        p = exact.log_softmax(axis)
        q = found.nan_to_num(-1e4, 1e4, -1e4).log_softmax(axis)
    return max(0.0, float((p.exp() * (p - q)).sum(axis).mean()))
