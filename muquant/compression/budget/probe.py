"""What a weight's error does to the answers of the network."""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from muquant.compression.budget.curve import WidthCurve

PROBED = (2, 4)
"""The widths at which the error of a weight is shown to the network. Between them, and beyond, the answers
follow the weight's own error as they do there."""
MOST_PROBED = 8
"""Samples that a network is run on for each weight."""
MOST_RUNS = 2**9
"""Runs of one sample for all weights together, at each width: a network with many is run on fewer samples."""
TRUST = 0.75
"""How far a measurement is trusted, where the network is not asked: a power of it. Errors of a few samples,
and of one weight alone, are not those of all weights together."""

MOST_JUDGED = 32
"""Samples that it is run on where all weights are tried at once, which are few runs."""

Probe = Callable[[Mapping[str, Tensor], int], float]
"""(values of weights by name, float32, to take the place of theirs; samples to run) -> the distortion of the
answers, 0 or more."""


def probed_samples(weights: int) -> int:
    """Return how many samples a network with so many weights is run on for each of them."""
    return max(1, min(MOST_PROBED, MOST_RUNS // max(weights, 1)))


def probed(
    curves: Sequence[WidthCurve], distortions: Sequence[Mapping[int, float]], trust: float = TRUST
) -> list[WidthCurve]:
    """Return curves whose noise is the distortion of the network's answers.

    Errors of different weights are independent, so that to first order their distortions add up (Lin,
    Talathi, Annapureddy, "Fixed Point Quantization of Deep Convolutional Networks", ICML 2016). At each width
    the weight's own noise is multiplied by what the answers lose for each of it, interpolated by its
    logarithm. A weight of which no error was seen, in a branch that no sample takes, is as sensitive as the
    median of the others.

    Args:
        curves: measured on weights alone.
        distortions: for each of them, width -> that of the answers with this weight at that width.
        trust: 0 to 1; the power of what the answers lose for each noise that is taken.
    """
    seen = [_logarithms(curve, own) for curve, own in zip(curves, distortions, strict=True)]
    known = [statistics.fmean(own.values()) for own in seen if own]
    if not known:
        return list(curves)
    usual = statistics.median(known)
    found = []
    for curve, own in zip(curves, seen, strict=True):
        losses = own or dict.fromkeys(PROBED[:1], usual)
        factors = [math.exp(trust * _between(losses, point.bits)) for point in curve.points]
        found.append(curve.times(factors, "answers" if own else "weight"))
    return found


def _logarithms(curve: WidthCurve, distortions: Mapping[int, float]) -> dict[int, float]:
    """Width -> log of what the answers lose for each noise of the weight, where they lose anything."""
    return {
        bits: math.log(lost / curve.at(bits).noise)
        for bits, lost in distortions.items()
        if lost > 0 and curve.at(bits).noise > 0
    }


def _between(losses: Mapping[int, float], bits: int) -> float:
    """Interpolate, and beyond the ends take theirs."""
    below, above = (
        max((b for b in losses if b <= bits), default=min(losses)),
        min((b for b in losses if b >= bits), default=max(losses)),
    )
    share = (bits - below) / (above - below) if above > below else 0.0
    return losses[below] + share * (losses[above] - losses[below])
