"""Widths that are so many bits on average, with the least noise."""

from collections.abc import Callable, Sequence

from muquant.compression.budget.curve import WidthCurve
from muquant.compression.budget.front import Front
from muquant.compression.budget.measure import Measurement

TRUSTS = (0.0, 0.5, 0.75, 1.0)
"""How far measurements of one weight at a time are trusted; the network, run with all of them, decides."""

MADE_UP_TRUST = 0.5
"""How far they are trusted on made-up inputs. A network may answer little to them, and is no judge."""
CLEARLY = 0.9
"""What a few samples have to promise, as a share of the distortion with one width for all."""
BROKEN = 0.5
"""A distortion from which on answers are so far from right that they tell no widths apart."""

Compressed = Callable[[dict[str, int]], float]
"""Compresses the network with these widths, and returns the distortion of its answers to held-out samples."""


def spread(measured: Measurement, bits: int, compressed: Compressed | None = None) -> dict[str, int]:
    """Return a width for each weight: those with the least noise in all that take no more bytes than if all
    that may be chosen had `bits`. What is pinned is not counted. Where the network cannot be run all have
    `bits`: errors of weights alone do not tell which of them matter.

    Where the network can be run on what it is for, it is the judge: of such widths for several `TRUSTS` those
    are taken with which its answers are distorted least; and `bits` for all, unless that is far from it, see
    `CLEARLY`. That is with every weight at its nearest level. Better rounding helps narrow weights more, so
    that where it follows the last choice, of the best and of `bits` for all, is made once both are rounded.
    A network that is `BROKEN` by nearest levels is no judge of widths: there measurements are trusted.

    Args:
        measured: the weights.
        bits: on average, 2 to 8.
        compressed: what a better rounding makes of widths; None where there is none.
    """
    flat = _flat(measured.curves, bits)
    if measured.probe is None:
        return flat
    if measured.made_up:
        return widths_within(measured.trusted(MADE_UP_TRUST), bits)
    tried: list[dict[str, int]] = []
    for widths in (widths_within(measured.trusted(trust), bits) for trust in TRUSTS):
        if widths not in tried:
            tried.append(widths)
    lost = [measured.distortion(widths) for widths in tried]
    best = tried[lost.index(min(lost))]
    if compressed is not None and min(lost) > BROKEN:
        best = widths_within(measured.trusted(TRUSTS[-1]), bits)
    if best == flat:
        return flat
    if compressed is not None:
        return best if compressed(best) < compressed(flat) else flat
    return best if min(lost) < CLEARLY * measured.distortion(flat) else flat


def widths_within(curves: Sequence[WidthCurve], bits: int) -> dict[str, int]:
    """Return the widths with the least noise in all, see `spread`."""
    allowed = sum(
        curve.at(width).nbytes for curve, width in zip(curves, _flat(curves, bits).values(), strict=True)
    )
    front = Front.of(curves).within(allowed)
    return {curve.name: int(width) for curve, width in zip(curves, front.bits[-1], strict=True)}


def _flat(curves: Sequence[WidthCurve], bits: int) -> dict[str, int]:
    return {curve.name: bits if curve.pinned is None else curve.pinned for curve in curves}
