"""How far a benchmark is, so that a bar can tell how long it still takes."""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from muquant.robustness.suites import SuiteAttack

_FACTORS = ("steps", "restarts", "targets", "searches", "queries", "samples", "iterations")
"""Parameters of attacks to which their forward passes are proportional."""


@dataclass(frozen=True)
class BenchmarkProgress:
    """Where a benchmark is.

    Attributes:
        share: of the work that is done, 0..1. What attacks need at most is counted, so that a model that is
            fooled quickly is done sooner than it says.
        what: the model and attack at work.
        done: images of that attack.
        total: images of that attack.
    """

    share: float
    what: str
    done: int
    total: int


OnBenchmarkProgress = Callable[[BenchmarkProgress], None]


class Meter:
    """Turns the batches of attacks into progress through all of them.

    Args:
        work: the title of each attack and its work, in the order in which they run.
        on_progress: called after each batch.
    """

    def __init__(self, work: Iterable[tuple[str, float]], on_progress: OnBenchmarkProgress) -> None:
        self._places: dict[str, tuple[float, float]] = {}
        self._total = 0.0
        self._done = 0.0
        self._on_progress = on_progress
        for title, units in work:
            self._places[title] = self._total, units
            self._total += units

    def __call__(self, title: str, done: int, total: int) -> None:
        """Take in a batch; what is not in the work, such as the probe of a check, does not move the share."""
        start, units = self._places.get(title, (self._done, 0.0))
        self._done = start + units * done / total
        self._on_progress(BenchmarkProgress(self._done / max(self._total, 1.0), title, done, total))


def work(suite_attack: SuiteAttack, count: int) -> float:
    """What an attack on `count` images needs at most: forward passes, those with a gradient count double."""
    passes = math.prod(getattr(suite_attack.attack, name, 1) for name in _FACTORS)
    images = count if suite_attack.limit is None else min(suite_attack.limit, count)
    return float(passes * images * (2 if suite_attack.attack.needs_gradients else 1))
