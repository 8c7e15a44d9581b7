"""Gradients that vanish and losses that still rise, on nets whose gradients and losses are known."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from muquant.attacks import PGD, TorchTarget
from muquant.robustness.checks import gradients
from muquant.robustness.checks.gradients import TemperedPGD, incomplete_optimisation, scale, zero_gradients
from muquant.robustness.evidence import Evidence, Finding
from muquant.robustness.sweep import pgd

Cases = Callable[..., Any]
Found = Callable[[Any, Evidence], Finding]

COUNT = 10_000
EPSILONS = (0.075, 0.15, 0.3 * 0.75, 0.3, 0.3 * 1.5, 0.5, 0.6)


class Gap(nn.Module):
    """Logits (gap, 0, 0) for every image."""

    def __init__(self, gap: float) -> None:
        super().__init__()
        self.gap = gap

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.tensor([self.gap, 0.0, 0.0]).expand(len(inputs), 3)


def logits_of_forty(case: Cases, at: float, ce: int, margin: int, tempered: int | None) -> Evidence:
    """All attacks leave nothing but at one epsilon, and there so many."""
    made = case(COUNT)
    evidence: Evidence = replace(made.evidence, module=Gap(40.0))
    for epsilon in EPSILONS:
        made.pgd(*((ce, margin) if epsilon == at else (0, 0)), epsilon)
    if tempered is not None:
        made.probe(TemperedPGD.of(pgd(evidence, at, "ce"), 4.0), tempered)
    return evidence


@pytest.mark.parametrize("at", [0.3, 0.6])
@pytest.mark.parametrize(
    ("margin", "tempered", "value", "fired"),
    [
        (5000, None, 0.0, False),  # not suspect: nothing more is run
        (4800, None, 0.02, False),
        (4799, 4800, 0.02, False),
        (4799, 5000, 0.0, False),  # the margin suits the net better, but not for the size of its logits
        (4799, 4799, 0.0201, True),
        (3000, 4799, 0.0201, True),
        (4799, 3000, 0.0201, True),
    ],
)
def test_both_cures_must_find_more(
    found: Found, case: Cases, at: float, margin: int, tempered: int | None, value: float, fired: bool
) -> None:
    finding = found(scale, logits_of_forty(case, at, 5000, margin, tempered))
    assert finding.value == pytest.approx(value)
    assert (finding.threshold, finding.fired) == (0.02, fired)


@pytest.mark.parametrize(("ce", "fired"), [(1058, False), (1059, True)])
def test_no_scale_where_the_cross_entropy_leaves_chance(
    found: Found, case: Cases, ce: int, fired: bool
) -> None:
    """A score interval ends above 0.1 from 0.1 + z sqrt(0.1 * 0.9 / 10,000) = 0.10588 on."""
    finding = found(scale, logits_of_forty(case, 0.3, ce, 0, 0))
    assert finding.fired is fired


@pytest.mark.parametrize(
    ("gap", "temperature"), [(0.0, 1), (0.5, 1), (8, 1), (15.9, 1), (16.1, 2), (40, 4), (8000, 512)]
)
def test_temperature_brings_the_gap_to_8_to_16(case: Cases, gap: float, temperature: float) -> None:
    made = case(20)
    made.pgd(ce=20, margin=20)
    assert gradients._temperature(replace(made.evidence, module=Gap(gap))) == temperature


def test_tempered_pgd_is_pgd_on_smaller_logits() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.rand(40, 16, generator=generator)
    net, small = nn.Linear(16, 3), nn.Linear(16, 3)
    with torch.no_grad():
        net.weight.copy_(30 * torch.randn(3, 16, generator=generator))
        net.bias.zero_()
        small.weight.copy_(net.weight / 8)
        small.bias.zero_()
    labels = net(inputs).argmax(1)
    attack = PGD(epsilon=0.05, steps=4)
    found = TemperedPGD.of(attack, 8.0).attack(TorchTarget(net), inputs, labels, seed=1)
    expected = attack.attack(TorchTarget(small), inputs, labels, seed=1)
    plain = attack.attack(TorchTarget(net), inputs, labels, seed=1)
    assert torch.equal(found.adversarial, expected.adversarial)
    assert not torch.equal(found.adversarial, plain.adversarial)


class Linear(nn.Module):
    """Three logits of images [1, 2, 2], of which those are constant whose first pixel is below `blind`."""

    def __init__(self, blind: float = 0.0, size: float = 1.0) -> None:
        super().__init__()
        self.blind = blind
        self.register_buffer("weight", size * torch.tensor([[1.0, 2, 3, 4], [4, 3, 2, 1], [0, 0, 0, 0]]))
        self.weight: Tensor

    def forward(self, inputs: Tensor) -> Tensor:
        seen = (inputs[:, :1, 0, 0] >= self.blind).float()
        return seen * (inputs.flatten(1) @ self.weight.T)


def on_ramp(case: Cases, module: nn.Module, count: int = 200, correct: int | None = None) -> Evidence:
    """Images whose first pixels rise from 0 to 1, of which the last `correct` are classified correctly."""
    made = case(count)
    made.pgd(ce=count, margin=count)
    for result in made.runner.results.values():
        result.attacked[: count - (count if correct is None else correct)] = False
    made.evidence.sample.images[:, 0, 0, 0] = torch.arange(count) / count
    made.evidence.sample.labels[:] = 0
    evidence: Evidence = replace(made.evidence, module=module)
    return evidence


@pytest.mark.parametrize(("blind", "fired"), [(0, False), (10, False), (16, False), (17, True), (200, True)])
def test_zero_gradients_are_counted(found: Found, case: Cases, blind: int, fired: bool) -> None:
    """Of 200; a score interval ends above 0.05 from 0.05 + z sqrt(0.05 * 0.95 / 200) = 0.0802 on: 16.04."""
    finding = found(zero_gradients, on_ramp(case, Linear(blind=blind / 200)))
    assert finding.value == blind / 200
    assert finding.fired is fired


def test_zero_gradients_of_misclassified_images_do_not_count(found: Found, case: Cases) -> None:
    finding = found(zero_gradients, on_ramp(case, Linear(blind=0.5), correct=120))
    assert finding.value == 20 / 120
    assert zero_gradients(on_ramp(case, Linear(), correct=0)) is None


def test_saturated_softmax_has_no_gradient_where_the_margin_has_one(found: Found, case: Cases) -> None:
    """exp(-104) is below the smallest float32, so the gradient of the cross-entropy is 0."""
    finding = found(zero_gradients, on_ramp(case, Linear(size=1e4)))
    assert finding.value == 0.5  # the brighter half, on which label 0 is right
    assert finding.explanation.endswith("on cross-entropy and 0 on margin are zero")


class Detached(nn.Linear):
    """Its output depends on its parameters by differentiable operations, but not on its input."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs.detach().flatten(1))


@pytest.mark.parametrize("module", [Gap(1.0), Detached(4, 3)], ids=["constant", "detached"])
def test_no_gradient_at_all_counts_as_zero(found: Found, case: Cases, module: nn.Module) -> None:
    finding = found(zero_gradients, on_ramp(case, module))
    assert finding.value == 1.0


class Script(nn.Module):
    """At its calls the margin of label 0 takes the given values in turn."""

    def __init__(self, margins: list[float]) -> None:
        super().__init__()
        self.margins = iter(margins)

    def forward(self, inputs: Tensor) -> Tensor:
        first = 0 * inputs.flatten(1).sum(1)
        return torch.stack([first, first + next(self.margins)], dim=1)


STALLED = [-2.0 + min(number, 20) / 20 for number in range(40)]


@pytest.mark.parametrize(
    ("margins", "value", "fired"),
    [
        (STALLED, 0.0, False),
        ([-40.0 + number for number in range(40)], 10 / 39, True),
        ([*STALLED[:39], -1 + 0.0526], 0.0526 / 1.0526, False),
        ([*STALLED[:39], -1 + 0.0527], 0.0527 / 1.0527, True),
        ([*STALLED[:25], -0.5, *STALLED[26:]], 0.0, False),  # found before the last ten steps, and lost again
        ([*STALLED[:35], -0.5, *STALLED[36:]], 1 / 3, True),
        ([-1.0] * 40, 0.0, False),
    ],
)
def test_loss_that_rises_at_the_end(
    found: Found, case: Cases, margins: list[float], value: float, fired: bool
) -> None:
    finding = found(incomplete_optimisation, on_ramp_above_chance(case, Script(margins)))
    assert finding.value == pytest.approx(value, abs=1e-6)
    assert finding.fired is fired


def on_ramp_above_chance(case: Cases, module: nn.Module) -> Evidence:
    evidence = on_ramp(case, module)
    evidence.sample.labels[100:] = 1
    return evidence


def test_incomplete_optimisation_looks_at_images_that_pgd_left(case: Cases) -> None:
    made = case(50)
    made.pgd(ce=0, margin=0)
    assert incomplete_optimisation(replace(made.evidence, module=Script([]))) is None
