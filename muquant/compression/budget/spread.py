"""Widths that are so many bits on average, with the least noise."""

from collections.abc import Sequence

from muquant.compression.budget.curve import WidthCurve
from muquant.compression.budget.front import Front


def spread(curves: Sequence[WidthCurve], bits: int) -> dict[str, int]:
    """Return a width for each weight: those with the least noise in all that take no more bytes than if all
    that may be chosen had `bits`. What is pinned is not counted.

    Args:
        curves: of the weights.
        bits: on average, 2 to 8.
    """
    allowed = sum(curve.at(bits if curve.pinned is None else curve.pinned).nbytes for curve in curves)
    front = Front.of(curves).within(allowed)
    return {curve.name: int(width) for curve, width in zip(curves, front.bits[-1], strict=True)}
