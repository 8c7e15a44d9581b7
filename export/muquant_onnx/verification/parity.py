"""How far outputs are from what they should be, and how far they may be."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]

FLOAT_TOLERANCE = 1e-5
ROUNDED_AGREEMENT = 0.998
ROUNDED_TOLERANCE = 0.05
"""For outputs that are no logits, where activations are rounded, to 8 bits mostly."""
ROUNDED_TIE = 0.02
"""Logits that are so close, as a share of the largest, may change places there."""


def within(off: float, agreement: float | None, rounds: bool) -> bool:
    """Whether outputs are as near as they have to be."""
    if not rounds:
        return off <= FLOAT_TOLERANCE and agreement in (1, None)
    if agreement is None:
        return off <= ROUNDED_TOLERANCE
    return off < np.inf and agreement >= ROUNDED_AGREEMENT


def difference(found: Array | None, wanted: Array | None) -> float:
    """Return the largest difference over the largest finite value; infinite where only one is finite, or only
    one is an array of numbers."""
    if found is None or wanted is None:
        return 0.0 if found is wanted else float("inf")
    if found.shape != wanted.shape:
        return float("inf")
    one, other = found.astype(np.float64), wanted.astype(np.float64)
    finite = np.isfinite(other)
    alike = np.array_equal(one[~finite], other[~finite], equal_nan=True)
    if not alike or not np.isfinite(one[finite]).all():
        return float("inf")
    gap = float(np.abs(one[finite] - other[finite]).max(initial=0.0))
    largest = float(np.abs(other[finite]).max(initial=0.0))
    return gap / largest if largest else gap


def agreeing(found: Array, wanted: Array, tie: float) -> int:
    """Return how many rows of logits [N, classes] have the same argmax, up to equal ones.

    Args:
        found, wanted: the logits.
        tie: how close equal ones are, as a share of the largest.
    """
    if found.shape != wanted.shape:
        return 0
    chosen = np.take_along_axis(wanted, found.argmax(1)[:, None], 1)[:, 0]
    largest = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0))
    worse = chosen < wanted.max(1) - tie * largest
    return len(wanted) - int(worse.sum())
