"""Plans worth having, held to trying every combination of widths."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from muquant.compression.budget import front as module
from muquant.compression.budget.curve import WIDTHS, WidthCurve, WidthPoint
from muquant.compression.budget.front import Front


def curve(name: str, sizes: list[int], noise: list[float], pinned: int | None = None) -> WidthCurve:
    points = tuple(WidthPoint(*each) for each in zip(WIDTHS, sizes, noise, strict=True))
    return WidthCurve(name, "weight", pinned, points)


@st.composite
def curves(draw: st.DrawFn, most: int = 3) -> list[WidthCurve]:
    """Weights whose bytes rise with the width; the noise may do anything."""
    count = draw(st.integers(1, most))
    sizes = st.lists(st.integers(1, 60), min_size=len(WIDTHS), max_size=len(WIDTHS))
    noise = st.lists(st.floats(0, 1, width=16) | st.just(0.25), min_size=len(WIDTHS), max_size=len(WIDTHS))
    pinned = st.none() | st.sampled_from(WIDTHS)
    return [curve(str(i), np.cumsum(draw(sizes)).tolist(), draw(noise), draw(pinned)) for i in range(count)]


def everything(weights: list[WidthCurve]) -> list[tuple[int, float]]:
    """Oracle: (bytes, noise) of every combination."""
    return [
        (sum(point.nbytes for point in points), sum(point.noise for point in points))
        for points in product(*(weight.allowed for weight in weights))
    ]


def check_totals(front: Front, weights: list[WidthCurve]) -> None:
    """The plans cost what their widths cost, and none is worse than one before it."""
    for nbytes, noise, bits in zip(front.nbytes, front.noise, front.bits, strict=True):
        points = [weight.at(int(width)) for weight, width in zip(weights, bits, strict=True)]
        assert all(point in weight.allowed for point, weight in zip(points, weights, strict=True))
        assert nbytes == sum(point.nbytes for point in points)
        np.testing.assert_allclose(noise, sum(point.noise for point in points), rtol=1e-12)
    assert (np.diff(front.nbytes) > 0).all()
    assert (np.diff(front.noise) < 0).all()


@settings(deadline=None, max_examples=60)
@given(weights=curves(), budget=st.integers(0, 1300))
def test_for_few_weights_the_best_of_all_combinations_is_found(
    weights: list[WidthCurve], budget: int
) -> None:
    front = Front.of(weights)
    check_totals(front, weights)
    within = front.within(budget)
    allowed = [noise for nbytes, noise in everything(weights) if nbytes <= budget]
    assert bool(len(within)) == bool(allowed)
    if allowed:
        assert within.nbytes[-1] <= budget
        np.testing.assert_allclose(within.noise[-1], min(allowed), rtol=1e-12)


@settings(deadline=None, max_examples=60)
@given(weights=curves())
def test_the_hull_holds_the_best_plan_at_every_price(weights: list[WidthCurve]) -> None:
    front, hull = Front.of(weights), Front.of(weights).hull()
    assert hull.nbytes[[0, -1]].tolist() == front.nbytes[[0, -1]].tolist()
    slopes = np.diff(hull.noise) / np.diff(hull.nbytes)
    assert (np.diff(slopes) > 0).all()
    nbytes, noise = np.array(everything(weights)).T
    for price in (0, *-slopes, 0.01, 1):
        found = (hull.noise + price * hull.nbytes).min()
        np.testing.assert_allclose(found, (noise + price * nbytes).min(), rtol=1e-9)


@settings(deadline=None, max_examples=40)
@given(weights=curves(4), budgets=st.lists(st.integers(0, 1700), min_size=2, max_size=6))
def test_thinned_plans_keep_to_the_budget_and_near_the_optimum(
    weights: list[WidthCurve], budgets: list[int]
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "MOST", 5)
        front = Front.of(weights)
    check_totals(front, weights)
    exact = Front.of(weights)
    ends = (exact.nbytes[[0, -1]].tolist(), front.nbytes[[0, -1]].tolist())
    assert ends[0] == ends[1]
    before = np.inf
    for budget in sorted(budgets):
        found, optimum = front.within(budget), exact.within(budget)
        assert bool(len(found)) == bool(len(optimum))
        if len(found):
            assert found.nbytes[-1] <= budget
            assert found.noise[-1] <= before  # more bytes never make it worse
            before = found.noise[-1]
            beyond = exact.hull()
            step = beyond.noise[beyond.nbytes > budget]
            lowest = step[0] if len(step) else optimum.noise[-1]
            below = beyond.noise[beyond.nbytes <= budget][-1]
            assert found.noise[-1] - optimum.noise[-1] <= below - lowest + 1e-12


def test_many_weights_miss_the_bound_by_less_than_a_step() -> None:
    random = np.random.default_rng(0)
    weights = [
        curve(str(i), (size * np.array(WIDTHS)).tolist(), (power * 4.0 ** -np.array(WIDTHS)).tolist())
        for i, (size, power) in enumerate(
            zip(random.integers(10, 10**6, 60), random.lognormal(0, 2, 60), strict=True)
        )
    ]
    front = Front.of(weights)
    check_totals(front, weights)
    hull = front.hull()
    assert len(hull) == 6 * 60 + 1  # every step of every weight: all of these curves are convex
    for budget in np.linspace(hull.nbytes[0], hull.nbytes[-1], 25):
        bound = np.interp(budget, hull.nbytes, hull.noise)  # no combination lies below the hull
        found = front.within(int(budget))
        assert found.nbytes[-1] <= budget
        below = hull.noise[hull.nbytes <= budget][-1]
        assert bound <= found.noise[-1] <= below
        assert found.nbytes[-1] >= 0.998 * budget  # little is left over


def test_ties_are_taken_alike_every_time() -> None:
    same = [curve(str(i), list(range(10, 80, 10)), [1.0] * 7) for i in range(3)]
    front = Front.of(same)
    assert front.bits.tolist() == [[2, 2, 2]]
