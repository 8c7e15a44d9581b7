"""Intervals against scipy, closed forms and simulation."""

import pytest
import torch
from hypothesis import given, strategies as st
from scipy.stats import binomtest

from muquant.robustness.statistics import above_chance, excess, median, wilson


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_of_a_proportion_is_wilsons(counts: tuple[int, int]) -> None:
    expected = binomtest(*counts).proportion_ci(method="wilson")
    assert wilson(*counts) == pytest.approx((expected.low, expected.high), abs=1e-6)


def test_excess_by_hand() -> None:
    one = torch.tensor([True] * 60 + [False] * 40)
    other = torch.tensor([True] * 50 + [False] * 45 + [True] * 5)
    difference, half = excess(one, other)  # 10 images only in one, 5 only in the other
    assert difference == pytest.approx(0.05)
    assert half == pytest.approx(1.959964 * (15 - 25 / 100) ** 0.5 / 100)
    assert excess(one, one) == (0, 0)
    assert excess(other, one)[0] == pytest.approx(-0.05)


def test_the_interval_of_a_difference_covers_it_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    inside = 0
    for _ in range(1000):
        one, other = torch.rand(2, 400, generator=generator) < torch.tensor([[0.6], [0.5]])
        difference, half = excess(one, other)
        inside += abs(difference - 0.1) <= half
    assert 0.93 < inside / 1000 < 0.97


def test_chance_level() -> None:
    assert not above_chance(torch.arange(200) < 24, 10)
    assert above_chance(torch.arange(200) < 32, 10)


def test_median() -> None:
    assert median(torch.tensor([3.0, 1.0, 2.0])) == 2
    assert median(torch.tensor([1.0, torch.inf, torch.inf])) is None
    assert median(torch.empty(0)) is None
