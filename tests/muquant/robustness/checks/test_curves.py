"""Accuracy against epsilon, on outcomes made by hand: at, just below and just above each threshold."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from muquant.attacks import DDN
from muquant.robustness.checks.curves import plateau, rises, unbounded, unbounded_l2
from muquant.robustness.evidence import Evidence, Finding

Cases = Callable[..., Any]
Found = Callable[[Any, Evidence], Finding]

COUNT = 10_000
EPSILONS = (0.075, 0.15, 0.3 * 0.75, 0.3, 0.3 * 1.5, 0.5, 0.6)


def falling(case: Any, *left: int) -> None:
    """PGD leaves so many at each of `EPSILONS`."""
    for epsilon, count in zip(EPSILONS, left, strict=True):
        case.pgd(count, count, epsilon)


@pytest.mark.parametrize(("left", "fired"), [(0, False), (1000, False), (1058, False), (1059, True)])
def test_more_than_chance_where_images_can_be_grey(found: Found, case: Cases, left: int, fired: bool) -> None:
    """A score interval ends above 0.1 from 0.1 + z sqrt(0.1 * 0.9 / 10,000) = 0.10588 on."""
    made = case(COUNT)
    made.pgd(ce=5000, margin=left, epsilon=0.5)
    finding = found(unbounded, made.evidence)
    assert finding.value == left / COUNT
    assert finding.fired is fired


def test_chance_is_the_most_common_class(found: Found, case: Cases) -> None:
    made = case(100)
    made.pgd(ce=50, margin=50, epsilon=0.5)
    assert found(unbounded, made.evidence).fired
    made.evidence.sample.labels[:50] = 3
    assert made.evidence.chance(100) == 0.55
    assert not found(unbounded, made.evidence).fired


def test_half_the_diameter_is_where_l2_balls_hold_the_grey_image(found: Found, case: Cases) -> None:
    """Images of 4 values: from any corner of [0, 1]^4 to the middle it is 0.5 sqrt(4) = 1."""
    made = case(100, epsilon=0.25, norm="l2")
    made.pgd(ce=100, margin=100, epsilon=1.0)
    assert found(unbounded, made.evidence).fired


@pytest.mark.parametrize(("missed", "fired"), [(0, False), (100, False), (119, False), (121, True)])
def test_ddn_fails_at_any_distance(found: Found, case: Cases, missed: int, fired: bool) -> None:
    """A score interval ends above 0.01 from 0.01 + z sqrt(0.01 * 0.99 / 10,000) = 0.01195 on."""
    made = case(COUNT)
    made.outcome("ddn", DDN(), made.left(missed))
    finding = found(unbounded_l2, made.evidence)
    assert finding.value == missed / COUNT
    assert finding.fired is fired


def test_ddn_is_judged_on_images_that_it_attacked(found: Found, case: Cases) -> None:
    made = case(100)
    made.outcome("ddn", DDN(), made.left(10))
    attacked = made.outcomes["ddn"].result.attacked
    attacked[50:] = False
    made.outcomes["ddn"].result.success[50:] = False
    assert found(unbounded_l2, made.evidence).value == 10 / 50
    attacked[:] = False
    assert unbounded_l2(made.evidence) is None


@pytest.mark.parametrize(("more", "fired"), [(-1, False), (99, False), (100, False), (101, True)])
def test_accuracy_rises(found: Found, case: Cases, more: int, fired: bool) -> None:
    made = case(COUNT)
    falling(made, 9000, 8000, 7000, 5000, 4000, 3000, 3000 + more)
    finding = found(rises, made.evidence)
    assert finding.value == pytest.approx(max(more, -1) / COUNT)
    assert finding.fired is fired
    assert "at epsilon 0.6 " in finding.explanation


def test_accuracy_rises_across_several_points(found: Found, case: Cases) -> None:
    made = case(COUNT)
    falling(made, 9000, 5000, 5060, 5120, 100, 50, 0)
    finding = found(rises, made.evidence)
    assert finding.value == pytest.approx(0.012)
    assert "at epsilon 0.3 51.2% and at epsilon 0.15 50.0%" in finding.explanation


def plateau_case(case: Cases, at_epsilon: int, at_twice: int) -> Any:
    made = case(COUNT)
    made.pgd(ce=at_epsilon, margin=at_epsilon)
    made.pgd(ce=at_twice, margin=at_twice, epsilon=0.6)
    return made


@pytest.mark.parametrize(
    ("both", "fired"), [(0, False), (4750, False), (4780, False), (4781, True), (5000, True)]
)
def test_twice_epsilon_finds_nothing_more(found: Found, case: Cases, both: int, fired: bool) -> None:
    """A score interval ends above 0.95 from 0.95 + z sqrt(0.95 * 0.05 / 5,000) = 0.95604 on, 4780.2."""
    finding = found(plateau, plateau_case(case, 5000, both).evidence)
    assert finding.value == both / 5000
    assert finding.fired is fired


@pytest.mark.parametrize(("left", "applies"), [(1058, False), (1059, True), (9500, True), (9501, False)])
def test_plateau_is_asked_between_chance_and_an_epsilon_that_does_nothing(
    case: Cases, left: int, applies: bool
) -> None:
    assert (plateau(plateau_case(case, left, left).evidence) is not None) is applies


@pytest.mark.parametrize("check", [plateau, unbounded, rises])
def test_all_images_misclassified(case: Cases, check: Any) -> None:
    made = case(50)
    falling(made, *[0] * 7)
    for result in made.runner.results.values():
        result.attacked[:] = False
    finding = check(made.evidence)
    assert finding is None or not finding.fired


@pytest.mark.parametrize("check", [plateau, unbounded, rises, unbounded_l2])
def test_one_image(case: Cases, check: Any) -> None:
    made = case(1)
    falling(made, *[1] * 7)
    made.outcome("ddn", DDN(), torch.ones(1, dtype=torch.bool))
    finding = check(made.evidence)
    assert finding is None or finding.explanation
