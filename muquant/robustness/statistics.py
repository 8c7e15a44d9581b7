"""How sure a figure is that was counted on a sample."""

import math
from statistics import NormalDist

import torch
from scipy.stats import binomtest
from torch import Tensor

Z = NormalDist().inv_cdf(0.975)
"""1.96, the 97.5th percentile of the normal distribution: two-sided 95 %."""


def wilson(successes: int, count: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927), both ends in 0..1.

    Args:
        successes: 0..count.
        count: 1 or more.
    """
    interval = binomtest(successes, count).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def excess(one: Tensor, other: Tensor) -> tuple[float, float]:
    """How much more often `one` is true than `other` on the same images, and how sure that is.

    Args:
        one: bool [N].
        other: bool [N], for the same images.

    Returns:
        mean(one) - mean(other), and the half width of its 95 % interval for paired proportions,
        z sqrt(b + c - (b - c)^2 / N) / N with b and c the images on which only one of them is true.
    """
    count = len(one)
    b, c = int((one & ~other).sum()), int((other & ~one).sum())
    return (b - c) / count, Z * math.sqrt(max(b + c - (b - c) ** 2 / count, 0.0)) / count


def mean_interval(values: Tensor) -> tuple[float, float]:
    """The 95 % interval of a mean of values in 0..1, [N] with N >= 1, by their spread; both ends in 0..1."""
    mean, half = float(values.mean()), Z * float(values.std(correction=0)) / math.sqrt(len(values))
    return max(mean - half, 0.0), min(mean + half, 1.0)


def median(values: Tensor) -> float | None:
    """The median of values [N]; None where there is none, or it is infinite."""
    if not len(values):
        return None
    result = float(torch.quantile(values.double(), 0.5, interpolation="lower"))
    return result if math.isfinite(result) else None
