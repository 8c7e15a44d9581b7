"""What a weight's error does to the answers of the network."""

import statistics
from collections.abc import Callable, Sequence

from torch import Tensor

from muquant.compression.budget.curve import PROBE_BITS, WidthCurve

MOST_PROBED = 8
"""Samples that a network is run on for each weight."""
MOST_RUNS = 2**10
"""Runs of one sample for all weights together; a network with many weights is run on fewer samples."""

Probe = Callable[[str, Tensor], float]
"""(name of a weight, float32 value to take its place) -> the distortion of the answers, 0 or more."""


def probed_samples(weights: int) -> int:
    """Return how many samples a network with so many weights is run on for each of them."""
    return max(1, min(MOST_PROBED, MOST_RUNS // max(weights, 1)))


def probed(curves: Sequence[WidthCurve], distortions: Sequence[float]) -> list[WidthCurve]:
    """Return curves whose noise is the distortion of the network's answers, as that at one width says.

    Errors of different weights are independent, so that to first order their distortions add up (Lin,
    Talathi, Annapureddy, "Fixed Point Quantization of Deep Convolutional Networks", ICML 2016), and each is
    proportional to the power of its weight's error. A weight of which no error was seen, in a branch that no
    sample takes, is as sensitive as the median of the others.

    Args:
        curves: measured on weights alone.
        distortions: for each of them that of the answers with this weight at `PROBE_BITS`.
    """
    own = [curve.at(PROBE_BITS).noise for curve in curves]
    known = [
        distortion / noise
        for distortion, noise in zip(distortions, own, strict=True)
        if distortion > 0 and noise > 0
    ]
    if not known:
        return list(curves)
    usual = statistics.median(known)
    return [
        curve.times(distortion / noise, "answers")
        if distortion > 0 and noise > 0
        else curve.times(usual, "weight")
        for curve, distortion, noise in zip(curves, distortions, own, strict=True)
    ]
