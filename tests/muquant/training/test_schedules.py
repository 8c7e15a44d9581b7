import warnings

import pytest
import torch
from torch.optim.lr_scheduler import CosineAnnealingLR, LRScheduler, OneCycleLR

from muquant.base.errors import InputError
from muquant.training import SCHEDULES, learning_rate

PEAK = 0.3


def rates(schedule: str, steps: int, warmup: float) -> list[float]:
    return [learning_rate(schedule, PEAK, step, steps, warmup) for step in range(steps)]


def torch_rates(scheduler: LRScheduler, steps: int) -> list[float]:
    result = []
    for _ in range(steps):
        result.append(float(scheduler.get_last_lr()[0]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the optimizer never steps
            scheduler.step() if len(result) < steps else None
    return result


def optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=PEAK)


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.3, 0.37, 0.9])
@pytest.mark.parametrize("steps", [7, 100, 101])
def test_one_cycle_is_torchs(steps: int, warmup: float) -> None:
    oracle = OneCycleLR(optimizer(), PEAK, total_steps=steps, pct_start=warmup, cycle_momentum=False)
    assert rates("one-cycle", steps, warmup) == pytest.approx(torch_rates(oracle, steps), rel=1e-9)


@pytest.mark.parametrize("steps", [1, 7, 100])
def test_cosine_without_warmup_is_torchs(steps: int) -> None:
    oracle = CosineAnnealingLR(optimizer(), T_max=steps)
    assert rates("cosine", steps, 0.0) == pytest.approx(torch_rates(oracle, steps), rel=1e-9)


def test_cosine_after_warmup_is_torchs() -> None:
    oracle = CosineAnnealingLR(optimizer(), T_max=75)
    expected = [PEAK * (step + 1) / 25 for step in range(25)] + torch_rates(oracle, 75)
    assert rates("cosine", 100, 0.25) == pytest.approx(expected, rel=1e-9)


def test_constant_rises_and_stays() -> None:
    assert rates("constant", 10, 0.4) == pytest.approx([PEAK * k / 4 for k in (1, 2, 3, 4)] + [PEAK] * 6)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("steps", [1, 2, 3, 10])
@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.99])
def test_every_rate_is_in_range_for_short_runs(schedule: str, steps: int, warmup: float) -> None:
    assert all(0 < rate <= PEAK * (1 + 1e-12) for rate in rates(schedule, steps, warmup))


def test_an_unknown_schedule_lists_the_known_ones() -> None:
    with pytest.raises(InputError, match="one-cycle, cosine, constant"):
        learning_rate("step", PEAK, 0, 10, 0.0)
