"""What the budget's dynamic programme and an integer programme (scipy's `milp`, HiGHS) make of equal curves.

    OMP_NUM_THREADS=1 python benchmarks/budget_solvers.py [--seconds 5]

Random curves of three kinds. Of twelve budgets four are exactly the bytes of a plan, four a byte less, four
evenly spread. `milp` is asked to leave no gap, with noises as they are or 1e6 times that, and bytes in three
scalings. Bytes and noise of plans are summed again from their widths; `excess` is the noise over the least
that any solver found within the budget, less 1. `front.py` finds the plans for all budgets at once, in the
seconds that stand there. HiGHS prints lines of its own in between.

Writes `results/budget_solvers.json`; the exit status is 1 where `front.py` exceeds a budget, or makes a plan
worse for more bytes.
"""

import argparse
import itertools
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from provenance import write_results
from rich.console import Console
from rich.table import Table
from scipy import __version__ as scipy_version, sparse
from scipy.optimize import Bounds, LinearConstraint, milp

from muquant.compression.budget.curve import WIDTHS, WidthCurve, WidthPoint
from muquant.compression.budget.front import Front

SEED = 0
NETWORKS = {10: 4, 30: 4, 100: 2, 500: 1}
"""Number of weights -> networks of each kind."""

ORDINARY, SPREAD, LARGE = "ordinary", "noises over 5 decades", "1e6 to 1e9 elements"
OURS = "front.py"
PROGRAMMES = {
    "milp, bytes": (1.0, "bytes"),
    **{f"milp, 1e6 noise, {unit}": (1e6, unit) for unit in ("bytes", "bytes / budget", "bytes / most")},
}
"""Name -> what noises are multiplied by, and the unit of the row of bytes; "most" is the largest weight's."""


@dataclass(frozen=True)
class Found:
    """What a solver made of a budget: seconds, bytes beyond it, noise, and whether its time was over."""

    seconds: float
    over: int
    noise: float
    stopped: bool
    excess: float = 0.0


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--seconds", type=float, default=5.0, help="that milp may take for a budget")
    options = parser.parse_args()
    rng, rows = np.random.default_rng(SEED), []
    for kind, (weights, networks) in itertools.product((ORDINARY, SPREAD, LARGE), NETWORKS.items()):
        found = [compare(random_curves(rng, kind, weights), options.seconds) for _ in range(networks)]
        for solver in found[0]:
            figures = summary([each[solver] for each in found])
            rows.append({"kind": kind, "weights": weights, "solver": solver, **figures})
    table = Table(*rows[0])
    for row in rows:
        table.add_row(*(f"{each:.2g}" if isinstance(each, float) else str(each) for each in row.values()))
    Console(width=180).print(table)
    document = {"networks": NETWORKS, "most_seconds": options.seconds, "scipy": scipy_version, "rows": rows}
    print(f"wrote {write_results('budget_solvers', SEED, document)}")
    return int(any(row["solver"] == OURS and (row["over"] or row["worse"]) for row in rows))


def random_curves(rng: np.random.Generator, kind: str, weights: int) -> list[WidthCurve]:
    """Weights that have about a quarter of the noise for each bit more, give or take a fifth."""
    low, high = (6, 9) if kind == LARGE else (2, 6.5)
    curves = []
    for place in range(weights):
        elements = int(10 ** rng.uniform(low, high))
        noise = 0.1 * 10 ** rng.uniform(-5 if kind == SPREAD else -1, 0)
        nbytes = [-(-elements * bits // 8) + 4 * math.isqrt(elements) for bits in WIDTHS]
        noises = [float(noise * 4.0 ** (2 - bits) * rng.uniform(0.8, 1.2)) for bits in WIDTHS]
        points = tuple(map(WidthPoint, WIDTHS, nbytes, noises))
        curves.append(WidthCurve(str(place), "weight", None, points))
    return curves


def compare(curves: Sequence[WidthCurve], most_seconds: float) -> dict[str, list[Found]]:
    """What each solver finds for each budget, in their order."""
    start = time.perf_counter()
    front = Front.of(curves)
    seconds = time.perf_counter() - start
    low, high = int(front.nbytes[0]), int(front.nbytes[-1])
    exact = [int(front.within(int(low + part * (high - low))).nbytes[-1]) for part in (0.05, 0.2, 0.4, 0.7)]
    even = [int(low + part * (high - low)) for part in (0.1, 0.3, 0.5, 0.8)]
    all_found: dict[str, list[Found]] = {OURS: [], **{name: [] for name in PROGRAMMES}}
    for budget in sorted([*exact, *(max(each - 1, low) for each in exact), *even]):
        here = {OURS: judged(curves, front.within(budget).bits[-1], budget, seconds, False)}
        for name, (times, unit) in PROGRAMMES.items():
            here[name] = programme(curves, budget, times, unit, most_seconds)
        least = min(found.noise for found in here.values() if found.over <= 0)
        for name, found in here.items():
            all_found[name].append(replace(found, excess=found.noise / least - 1))
    return all_found


def programme(curves: Sequence[WidthCurve], budget: int, times: float, unit: str, most: float) -> Found:
    """The plan of `milp`: one width for each weight, all bytes within the budget, the least noise."""
    start = time.perf_counter()
    nbytes = np.array([float(point.nbytes) for curve in curves for point in curve.points])
    noise = np.array([point.noise for curve in curves for point in curve.points])
    scale = {"bytes": 1, "bytes / budget": budget, "bytes / most": nbytes.max()}[unit]
    ones = np.ones(len(curves))
    widths = sparse.kron(sparse.eye_array(len(curves)), np.ones((1, len(WIDTHS))))
    rows = sparse.vstack([sparse.csr_array(nbytes[None] / scale), widths]).tocsr()
    result = milp(
        noise * times,
        integrality=np.ones(len(noise)),
        bounds=Bounds(0, 1),
        constraints=LinearConstraint(rows, np.append(-np.inf, ones), np.append(budget / scale, ones)),
        options={"mip_rel_gap": 0, "time_limit": most},
    )
    bits = np.array(WIDTHS)[result.x.reshape(len(curves), -1).argmax(1)]
    return judged(curves, bits, budget, time.perf_counter() - start, result.status == 1)


def judged(curves: Sequence[WidthCurve], bits: Any, budget: int, seconds: float, stopped: bool) -> Found:
    """Bytes in integers, and noise, of the widths that were chosen."""
    points = [curve.at(int(width)) for curve, width in zip(curves, bits, strict=True)]
    nbytes, noise = sum(point.nbytes for point in points), math.fsum(point.noise for point in points)
    return Found(seconds, nbytes - budget, noise, stopped)


def summary(networks: Sequence[Sequence[Found]]) -> dict[str, int | float]:
    """Over all networks and budgets: median and longest seconds, how often too many bytes and how many at
    most, mean and largest excess of the plans within the budget, how often the next budget made it worse."""
    found = [each for network in networks for each in network]
    excess = [each.excess for each in found if each.over <= 0]
    pairs = [pair for network in networks for pair in itertools.pairwise(network) if pair[0].over <= 0]
    return {
        "budgets": len(found),
        "seconds": statistics.median(each.seconds for each in found),
        "longest": max(each.seconds for each in found),
        "stopped": sum(each.stopped for each in found),
        "over": sum(each.over > 0 for each in found),
        "most_over": max(0, *(each.over for each in found)),
        "mean_excess": statistics.mean(excess),
        "most_excess": max(excess),
        "worse": sum(after.noise > before.noise * (1 + 1e-12) for before, after in pairs),
    }


if __name__ == "__main__":
    sys.exit(main())
