"""How sure a figure is that was counted on a sample."""

import math

import torch
from torch import Tensor

Z = 1.959964
"""97.5th percentile of the normal distribution: two-sided 95 %."""


def wilson(successes: int, count: int) -> tuple[float, float]:
    """The 95 % score interval of a proportion (Wilson 1927), both ends in 0..1.

    Args:
        successes: 0..count.
        count: 1 or more.
    """
    share, z2 = successes / count, Z * Z / count
    centre = (share + z2 / 2) / (1 + z2)
    half = Z / (1 + z2) * math.sqrt(share * (1 - share) / count + z2 / (4 * count))
    return max(centre - half, 0.0), min(centre + half, 1.0)


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


def above_chance(survived: Tensor, classes: int) -> bool:
    """Whether an accuracy is above 1 / classes by more than its sampling error."""
    low, _ = wilson(int(survived.sum()), len(survived))
    return low > 1 / classes


def median(values: Tensor) -> float | None:
    """The median of values [N]; None where there is none, or it is infinite."""
    if not len(values):
        return None
    result = float(torch.quantile(values.double(), 0.5, interpolation="lower"))
    return result if math.isfinite(result) else None
