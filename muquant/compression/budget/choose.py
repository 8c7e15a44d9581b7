"""The plan that keeps within the limits."""

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from muquant.base.errors import InputError
from muquant.compression.budget.curve import WidthCurve
from muquant.compression.budget.front import Front
from muquant.compression.budget.limits import Limits
from muquant.compression.budget.measure import OnStep
from muquant.compression.budget.plan import Drop, Plan
from muquant.compression.selection import Layers

TryPlan = Callable[[Plan], Drop]
"""Compresses by a plan, runs the outcome on held-out samples and says what that does to the answers."""


def choose(
    curves: Sequence[WidthCurve],
    limits: Limits,
    layers: Layers,
    trial: TryPlan | None = None,
    on_step: OnStep | None = None,
) -> Plan:
    """Return the plan with the least noise within `max_bytes`; or, with `max_drop`, the smallest plan that
    keeps within both.

    With `max_drop` only plans on the lower hull of bytes and noise are looked at. By how much answers change
    rises with the noise, if not strictly: the plan is found by bisection, and the next smaller one that was
    tried failed.

    Args:
        curves: of the weights.
        limits: to keep within.
        layers: for the plan's record.
        trial: needed with `max_drop`.
        on_step: called before each trial.

    Raises:
        InputError: no plan keeps within the limits.
    """
    front = Front.of(curves)
    if limits.max_bytes is not None:
        front = _affordable(front, limits.max_bytes)

    def plan(place: int, plans: Front) -> Plan:
        bits = {curve.name: int(width) for curve, width in zip(curves, plans.bits[place], strict=True)}
        return Plan(bits, layers, limits.max_bytes, limits.max_drop, None, tuple(curves))

    if limits.max_drop is None:
        return plan(len(front) - 1, front)
    assert trial is not None
    ladder = front.hull()
    most, places = 1 + math.ceil(math.log2(len(ladder))), itertools.count()

    def attempt(place: int) -> Plan:
        tried = plan(place, ladder)
        if on_step is not None:
            on_step(f"trying {tried.nbytes:,} bytes", next(places), most)
        return replace(tried, drop=trial(tried))

    return _smallest(len(ladder), attempt, limits)


def _affordable(front: Front, max_bytes: int) -> Front:
    within = front.within(max_bytes)
    if not len(within):
        raise InputError(
            f"max_bytes is {max_bytes:,}; the narrowest widths allowed take {front.nbytes[0]:,} bytes, the "
            f"widest that still lower the noise {front.nbytes[-1]:,}; give at least the former"
        )
    return within


def _smallest(count: int, attempt: Callable[[int], Plan], limits: Limits) -> Plan:
    """Return the first of `count` plans whose drop is small enough, by bisection; the last must be."""
    low, high = 0, count - 1
    best = attempt(high)
    if not _good(best):
        drop = best.drop
        assert drop is not None
        within = "" if limits.max_bytes is None else f" within max_bytes {limits.max_bytes:,}"
        raise InputError(
            f"max_drop is {limits.max_drop:g} points, but with the widest plan{within}, of {best.nbytes:,} "
            f"bytes, {drop.changed:,} of {drop.answers:,} held-out answers change ({drop.points:.3g} "
            "points are to be expected); allow more"
        )
    while low < high:
        middle = (low + high) // 2
        plan = attempt(middle)
        if _good(plan):
            high, best = middle, plan
        else:
            low = middle + 1
    return best


def _good(plan: Plan) -> bool:
    assert plan.drop is not None
    assert plan.max_drop is not None
    return plan.drop.points <= plan.max_drop
