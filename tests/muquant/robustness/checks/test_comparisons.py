"""Comparisons of attacks, on outcomes made by hand: at, just below and just above each threshold."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from muquant.attacks import DDN, FGSM, PGD, NormalNoise, RandomSearch, Square, TorchTarget, Transfer
from muquant.robustness.checks.comparisons import (
    black_box,
    more_effort,
    per_example,
    random_search,
    step_order,
    transfer,
)
from muquant.robustness.evidence import Evidence, Finding
from muquant.robustness.sweep import pgd

Cases = Callable[[int], Any]
Found = Callable[[Any, Evidence], Finding]

COUNT = 10_000
"""So many that the interval of outcomes of which one holds the other is below every threshold."""

SQUARE = Square(epsilon=0.3)
MIM_ELSEWHERE = Transfer(surrogate=TorchTarget(nn.Linear(1, 1)), method=PGD(epsilon=0.3))


def fgsm(case: Any, ce: int, margin: int) -> None:
    case.probe(FGSM(epsilon=0.3, loss="ce"), ce)
    case.probe(FGSM(epsilon=0.3, loss="margin"), margin)


@pytest.mark.parametrize(("fewer", "fired"), [(-900, False), (99, False), (100, False), (101, True)])
def test_one_step_beats_many(found: Found, case: Cases, fewer: int, fired: bool) -> None:
    made = case(COUNT)
    made.pgd(ce=7000, margin=6000)
    fgsm(made, 9000, 6000 - fewer)
    finding = found(step_order, made.evidence)
    assert finding.value == pytest.approx(fewer / COUNT)
    assert (finding.threshold, finding.fired) == (0.01 if fewer > 0 else pytest.approx(0.01), fired)
    assert "under PGD 60.0%" in finding.explanation


def test_of_fgsm_and_of_pgd_the_worse_loss_counts(found: Found, case: Cases) -> None:
    made = case(COUNT)
    made.pgd(ce=5000, margin=7000)
    fgsm(made, 7000, 5500)
    assert found(step_order, made.evidence).value == pytest.approx(-0.05)


@pytest.mark.parametrize(("fewer", "fired"), [(3, False), (4, True)])
def test_few_images_must_exceed_their_interval(found: Found, case: Cases, fewer: int, fired: bool) -> None:
    """Of 200 images 3 are 1.5 %, above the threshold of 1 %, but z sqrt(3 - 9 / 200) / 200 is 1.68 %."""
    made = case(200)
    made.pgd(ce=150, margin=150)
    fgsm(made, 150 - fewer, 150)
    finding = found(step_order, made.evidence)
    assert finding.threshold == pytest.approx(1.959964 * (fewer - fewer**2 / 200) ** 0.5 / 200)
    assert finding.fired is fired


@pytest.mark.parametrize(("fewer", "fired"), [(19, False), (20, False), (21, True)])
@pytest.mark.parametrize(
    ("check", "name", "attack"), [(black_box, "square", SQUARE), (transfer, "transfer", MIM_ELSEWHERE)]
)
def test_cheaper_attack_beats_white_box(
    found: Found, case: Cases, check: Any, name: str, attack: Any, fewer: int, fired: bool
) -> None:
    made = case(COUNT)
    made.outcome("apgd-ce", PGD(epsilon=0.3), made.left(6000))
    made.outcome("apgd-t", PGD(epsilon=0.3, loss="margin"), made.left(5000))
    made.outcome(name, attack, made.left(5000 - fewer))
    made.outcome("pgd", PGD(epsilon=0.3, steps=9), made.left(4000), after=(name,))  # on what that one left
    finding = found(check, made.evidence)
    assert finding.value == pytest.approx(fewer / COUNT)
    assert (finding.threshold, finding.fired) == (0.002, fired)
    assert f"under apgd-t 50.0% and under {name}" in finding.explanation


def test_each_kind_of_cheaper_attack_has_its_own_check(found: Found, case: Cases) -> None:
    made = case(COUNT)
    made.outcome("apgd-ce", PGD(epsilon=0.3), made.left(6000))
    made.outcome("square", SQUARE, made.left(5000))
    made.outcome("noise", NormalNoise(sigma=0.1), made.left(10))
    assert transfer(made.evidence) is None
    assert found(black_box, made.evidence).value == pytest.approx(0.1)
    del made.outcomes["square"]
    made.outcome("transfer", MIM_ELSEWHERE, made.left(4000))
    assert found(transfer, made.evidence).value == pytest.approx(0.2)
    assert black_box(made.evidence) is None
    assert per_example(made.evidence) is None


def test_compared_on_the_images_that_both_saw(found: Found, case: Cases) -> None:
    made = case(1000)
    made.outcome("apgd-ce", PGD(epsilon=0.3), made.left(600))
    made.outcome("cw", PGD(epsilon=0.3, loss="margin"), made.left(0, 100))  # saw fewer: no rival
    made.outcome("square", SQUARE, made.left(300, 400))
    finding = found(black_box, made.evidence)
    assert finding.value == pytest.approx(0.25)
    assert "of 400 images under apgd-ce 100.0%" in finding.explanation


def test_examples_outside_the_headline_threat_do_not_count(found: Found, case: Cases) -> None:
    made = case(COUNT)
    made.outcome("ddn", DDN(), made.left(0), linf=0.31)
    made.outcome("apgd-ce", PGD(epsilon=0.3), made.left(5000), linf=0.3)
    made.outcome("square", SQUARE, made.left(4000))
    assert found(black_box, made.evidence).value == pytest.approx(0.1)
    assert found(per_example, made.evidence).value == pytest.approx(0.1)


@pytest.mark.parametrize(("fooled", "fired"), [(99, False), (100, False), (101, True)])
def test_query_attacks_fool_what_white_box_attacks_left(
    found: Found, case: Cases, fooled: int, fired: bool
) -> None:
    """Square leaves more than the white-box attacks, but other images."""
    made = case(COUNT)
    made.outcome("apgd-ce", PGD(epsilon=0.3), made.left(6000))
    made.outcome("apgd-t", PGD(epsilon=0.3, loss="margin"), ~made.left(1000))  # left: 1000..5999
    withstood = torch.ones(COUNT, dtype=torch.bool)
    withstood[2000 : 2000 + fooled] = False
    made.outcome("square", SQUARE, withstood)
    finding = found(per_example, made.evidence)
    assert finding.value == pytest.approx(fooled / COUNT)
    assert (finding.threshold, finding.fired) == (0.01, fired)
    assert found(black_box, made.evidence).value < 0


@pytest.mark.parametrize(("fooled", "fired"), [(100, False), (101, True)])
def test_random_points_fool_what_gradients_left(found: Found, case: Cases, fooled: int, fired: bool) -> None:
    made = case(COUNT)
    made.pgd(ce=8000, margin=7000)
    made.outcome("apgd-ce", PGD(epsilon=0.3), made.left(6000))
    made.probe(RandomSearch(epsilon=0.3), 6000 - fooled)
    finding = found(random_search, made.evidence)
    assert finding.value == pytest.approx(fooled / COUNT)
    assert (finding.threshold, finding.fired) == (0.01, fired)


@pytest.mark.parametrize(("steps", "restarts"), [(0, 51), (51, 0)])
@pytest.mark.parametrize(("less", "fired"), [(0, True), (1, False)])
def test_more_effort_of_the_better_loss(
    found: Found, case: Cases, steps: int, restarts: int, less: int, fired: bool
) -> None:
    made = case(COUNT)
    made.pgd(ce=6000, margin=7000)
    attack = pgd(made.evidence, 0.3, "ce")
    made.probe(replace(attack, steps=80), 6000 - max(steps - less, 0))
    made.probe(replace(attack, restarts=2), 6000 - max(restarts - less, 0))
    finding = found(more_effort, made.evidence)
    assert finding.value == pytest.approx((51 - less) / COUNT)
    assert (finding.threshold, finding.fired) == (0.005, fired)
    assert ("under 80 " if steps else "with 2 restarts ") in finding.explanation


@pytest.mark.parametrize("check", [step_order, black_box, transfer, per_example, random_search, more_effort])
@pytest.mark.parametrize(("left", "applies"), [(1058, False), (1059, True)])
def test_exempt_at_chance_level(case: Cases, check: Any, left: int, applies: bool) -> None:
    """A score interval ends above 0.1 from 0.1 + z sqrt(0.1 * 0.9 / 10,000) = 0.10588 on."""
    made = case(COUNT)
    made.pgd(ce=left, margin=left)
    made.outcome("apgd-ce", PGD(epsilon=0.3), made.left(left))
    made.outcome("square", SQUARE, made.left(0))
    made.outcome("transfer", MIM_ELSEWHERE, made.left(0))
    fgsm(made, 0, 0)
    made.probe(RandomSearch(epsilon=0.3), 0)
    attack = pgd(made.evidence, 0.3, "ce")
    made.probe(replace(attack, steps=80), 0)
    made.probe(replace(attack, restarts=2), 0)
    finding = check(made.evidence)
    assert (finding is not None) is applies
    assert finding is None or finding.fired


def test_all_images_misclassified(case: Cases) -> None:
    made = case(50)
    made.pgd(ce=0, margin=0)
    assert [check(made.evidence) for check in (step_order, random_search, more_effort)] == [None] * 3
