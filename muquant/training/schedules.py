"""Learning rates as pure functions of the step, so that a resumed run needs no scheduler state."""

import math
from collections.abc import Callable

from muquant.base.registry import look_up


def learning_rate(schedule: str, peak: float, step: int, steps: int, warmup: float) -> float:
    """The learning rate of one step.

    Args:
        schedule: a name of `SCHEDULES`.
        peak: the highest learning rate.
        step: 0..steps - 1.
        steps: of the whole run.
        warmup: the fraction of the steps, 0..1, in which the learning rate rises to `peak`.

    Raises:
        InputError: the schedule is unknown.
    """
    return peak * look_up("schedule", schedule, SCHEDULES)(step, steps, warmup)


def one_cycle(step: int, steps: int, warmup: float) -> float:
    """Up from 1/25 and down to 1/250,000, both along half a cosine.

    Smith and Topin, "Super-Convergence", 2018; the values of torch's OneCycleLR with its default factors.
    """
    lowest, final = 1 / 25, 1 / 25 / 1e4
    top = warmup * steps - 1  # the step at the peak; a fraction, as in torch
    if step <= top:
        return _half_cosine(lowest, 1.0, step / top) if top > 0 else 1.0
    return _half_cosine(1.0, final, (step - top) / (steps - 1 - top))


def cosine(step: int, steps: int, warmup: float) -> float:
    """A straight line up, then half a cosine down to 0, which the step after the last one would reach."""
    rising = round(warmup * steps)
    if step < rising:
        return (step + 1) / rising
    return _half_cosine(1.0, 0.0, (step - rising) / (steps - rising))


def constant(step: int, steps: int, warmup: float) -> float:
    """A straight line up, then level."""
    rising = round(warmup * steps)
    return (step + 1) / rising if step < rising else 1.0


Schedule = Callable[[int, int, float], float]
"""(step, steps, warmup) -> factor in 0..1 of the highest learning rate"""

SCHEDULES: dict[str, Schedule] = {"one-cycle": one_cycle, "cosine": cosine, "constant": constant}


def _half_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))
