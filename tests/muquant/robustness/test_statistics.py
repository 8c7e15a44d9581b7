"""Intervals against closed forms and simulation."""

import pytest
import torch
from hypothesis import given, strategies as st

from muquant.robustness.statistics import excess, median, wilson


@given(st.integers(1, 3000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_the_interval_of_a_proportion_is_wilsons(counts: tuple[int, int]) -> None:
    successes, count = counts
    low, high = wilson(*counts)
    assert 0 <= low <= successes / count <= high <= 1
    assert low < high
    for end in (low, high):  # where the score test of the proportion is at its critical value
        score = (successes - count * end) ** 2
        assert score == pytest.approx(1.959964**2 * count * end * (1 - end), rel=1e-6, abs=1e-9)


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


def test_median() -> None:
    assert median(torch.tensor([3.0, 1.0, 2.0])) == 2
    assert median(torch.tensor([1.0, torch.inf, torch.inf])) is None
    assert median(torch.empty(0)) is None
