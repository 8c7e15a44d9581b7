"""Outputs that are no logits, or never the same ones."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from muquant.attacks import Averaged
from muquant.robustness.checks.outputs import random_logits, softmax_output
from muquant.robustness.evidence import Evidence, Finding

EvidenceOf = Callable[..., Evidence]
Found = Callable[[Any, Evidence], Finding]


class Fixed(nn.Module):
    """Answers the given rows in turn, whatever it is asked."""

    def __init__(self, rows: list[list[float]]) -> None:
        super().__init__()
        self.rows = torch.tensor(rows)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.rows[torch.arange(len(inputs)) % len(self.rows)]


@pytest.mark.parametrize(
    ("row", "fired"),
    [
        ([0.2, 0.3, 0.5], True),
        ([0.0, 0.0, 1.0], True),
        ([0.2, 0.3, 0.498], False),  # sums to 0.998
        ([-0.1, 0.6, 0.5], False),
        ([1.1, -0.05, -0.05], False),
        ([1.0, 2.0, -2.0], False),
    ],
)
def test_probabilities(found: Found, evidence_of: EvidenceOf, row: list[float], fired: bool) -> None:
    finding = found(softmax_output, evidence_of(Fixed([row])))
    assert finding.fired is fired
    assert finding.value == float(fired)


@pytest.mark.parametrize(("of_five", "fired"), [(2, False), (3, True)])
def test_most_images_must_get_probabilities(
    found: Found, evidence_of: EvidenceOf, of_five: int, fired: bool
) -> None:
    """Of 100 images; a score interval ends above 0.5 from 0.5 + z sqrt(0.25 / 100) = 0.598 on."""
    rows = [[0.5, 0.5] if number < of_five else [3.0, 1.0] for number in range(5)]
    finding = found(softmax_output, evidence_of(Fixed(rows)))
    assert finding.value == of_five / 5
    assert finding.fired is fired


class Drifting(nn.Module):
    """Logits (3, 4), of length 5, of which the first grows by `step` with every call."""

    def __init__(self, step: float) -> None:
        super().__init__()
        self.step, self.calls = step, -1

    def forward(self, inputs: Tensor) -> Tensor:
        self.calls += 1
        return torch.tensor([3.0 + self.calls * self.step, 4.0]).expand(len(inputs), 2)


@pytest.mark.parametrize(("step", "fired"), [(0.0, False), (1.2e-4, False), (1.3e-4, True)])
def test_logits_change_between_calls(found: Found, evidence_of: EvidenceOf, step: float, fired: bool) -> None:
    """The fifth call differs from the first by 4 steps: 0.8 of a step in units of the length."""
    finding = found(random_logits, evidence_of(Drifting(step), count=100))
    assert finding.value == pytest.approx(0.8 * step, rel=0.01)
    assert finding.fired is fired


class Tossed(nn.Module):
    """Ten logits, the brightest quarter's among them, with normal noise on top."""

    def __init__(self, noise: float) -> None:
        super().__init__()
        self.noise, self.linear = noise, nn.Linear(64, 10)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.linear(inputs.flatten(1))
        return logits + self.noise * torch.randn(logits.shape)


def test_the_mean_of_enough_passes_is_no_random_answer(found: Found, evidence_of: EvidenceOf) -> None:
    torch.manual_seed(0)
    module = Tossed(0.05)
    alone, few, many = (
        found(random_logits, evidence_of(each))
        for each in (module, Averaged(module, 2), Averaged(module, 4000))
    )
    assert (alone.fired, few.fired, many.fired) == (True, True, False)
    assert "--eot" in alone.explanation
    assert "mean of 2 passes" in few.explanation
    assert few.value > many.value


def test_dropout_is_off_while_the_model_is_asked(found: Found, evidence_of: EvidenceOf) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 10)).train()
    finding = found(random_logits, evidence_of(module))
    assert finding.value == 0
    assert module.training
