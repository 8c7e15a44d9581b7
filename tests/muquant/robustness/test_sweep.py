"""The curves: which attacks they come from, and what they say."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from muquant.attacks import DDN, PGD, AttackResult, Norm, TorchTarget
from muquant.base.processes import Processes
from muquant.robustness.evidence import AttackOutcome, Evidence
from muquant.robustness.runner import Runner, Sample
from muquant.robustness.settings import Settings
from muquant.robustness.store import Store
from muquant.robustness.suites import SuiteAttack
from muquant.robustness.sweep import curves, distance_curve, pgd, sweep


class Line(nn.Module):
    """Class 1 where the mean of the four pixels is above 0.5."""

    def forward(self, inputs: Tensor) -> Tensor:
        mean = inputs.flatten(1).mean(1)
        return torch.stack([0.5 - mean, mean - 0.5], dim=1)


def evidence(epsilon: float = 0.2, norm: Norm = "linf", count: int = 8) -> Evidence:
    """Grey images of class 1, whose Linf distance from the boundary rises from 0 to 0.5, not quite."""
    level = 0.5 + 0.5 * (torch.arange(count) + 0.5) / count
    images = level[:, None, None, None].expand(count, 1, 2, 2).contiguous()
    sample = Sample(images, torch.ones(count, dtype=torch.int64), 2)
    module = Line()
    runner = Runner("line", TorchTarget(module), "", sample, 0, Store(None), Processes(), lambda *_: None)
    return Evidence(module, Settings(epsilon=epsilon, norm=norm, l2_bound=0.5), sample, {}, runner)


def test_points_rise_and_hold_the_exact_accuracy() -> None:
    points = sweep(evidence())
    assert [point.epsilon for point in points] == pytest.approx([0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5])
    distance = 0.5 * (torch.arange(8) + 0.5) / 8
    for point in points:
        for withstood in (point.ce, point.margin, point.withstood):
            assert withstood.tolist() == (distance > point.epsilon).tolist()


def test_both_losses_count() -> None:
    (point,) = {point.epsilon: point for point in sweep(evidence()) if point.epsilon == 0.2}.values()
    ce, margin = torch.tensor([True, True, False]), torch.tensor([True, False, True])
    assert replace(point, ce=ce, margin=margin).withstood.tolist() == [True, False, False]


@pytest.mark.parametrize(("share", "steps"), [(0.25, 10), (0.75, 30), (1.0, 40), (2.0, 40)])
def test_steps_below_the_headline_epsilon_are_fewer_and_as_long(share: float, steps: int) -> None:
    attack = pgd(evidence(), share * 0.2, "margin")
    assert attack == PGD(epsilon=share * 0.2, loss="margin", steps=steps)
    assert attack.step(share * 0.2) == pytest.approx(2.5 * 0.2 / 40 * max(share, 1))


@pytest.mark.parametrize(
    ("epsilon", "norm", "expected"),
    [
        (0.4, "linf", [0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8]),
        (0.8, "linf", [0, 0.2, 0.4, 0.5, 0.6, 0.8, 1.0]),  # never above the range of the inputs
        (0.25, "linf", [0, 0.0625, 0.125, 0.1875, 0.25, 0.375, 0.5]),
        (0.0, "linf", [0, 0.5]),
        (1.2, "l2", [0, 0.3, 0.6, 0.9, 1.0, 1.2, 1.8, 2.0]),  # half the diameter of 4 values is 1
    ],
)
def test_epsilons(epsilon: float, norm: Norm, expected: list[float]) -> None:
    assert [point.epsilon for point in sweep(evidence(epsilon, norm))] == pytest.approx(expected)


def test_curves_of_the_report() -> None:
    in_headline_norm, in_l2 = curves(evidence())
    assert (in_headline_norm.norm, in_headline_norm.count) == ("linf", 8)
    assert in_headline_norm.epsilon == pytest.approx((0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5))
    assert in_headline_norm.accuracy == (1.0, 7 / 8, 6 / 8, 6 / 8, 5 / 8, 3 / 8, 2 / 8, 0.0)
    assert (in_l2.attack, in_l2.norm, in_l2.count) == ("DDN", "l2", 8)
    assert in_l2.epsilon == pytest.approx([0.125 * number for number in range(17)])
    assert in_l2.accuracy[0] == 1.0
    assert in_l2.accuracy[-1] == 0.0  # Linf distances below 0.5 are L2 distances below 1, of 4 values


def test_distances_of_the_suite_are_used() -> None:
    made, count = evidence(), 4
    found = AttackResult(
        torch.zeros(count, 1, 2, 2),
        torch.tensor([True, True, True, False]),
        torch.tensor([True, True, False, False]),
        torch.ones(count, dtype=torch.int64),
        torch.tensor([0.5, 1.0, 0.0, 0.0]),
        torch.zeros(count),
        torch.zeros(count),
        0.0,
    )
    suite = {"ddn-ball": DDN(epsilon=0.1), "ddn": DDN()}
    outcomes = {name: AttackOutcome(SuiteAttack(name, attack), found) for name, attack in suite.items()}
    curve = curves(replace(made, outcomes=outcomes))[1]
    assert curve.accuracy == (0.75,) * 4 + (0.5,) * 4 + (0.25,) * 9
    assert distance_curve("DDN", found, (0.0, 0.5)).accuracy == (0.75, 0.5)
