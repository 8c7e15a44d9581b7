"""What 3 bits cost a robust network, against float networks that were trained for as many epochs.

    MUQUANT_DATA=... python benchmarks/robust_3bit.py [--seeds 0 1 2] [--count 1000] [--weights trained]

For each seed, cnn4 is trained adversarially on MNIST in float, and from there on for as many epochs in float
and at 3 bits in every layer (`RECIPES` of `robust/ladder.py`); the float network is rounded to 3 bits, too.
All are entries of the leaderboard, where they are attacked unless they were already. Half an hour of training
and an hour of attacks for each seed, on two cores; whatever is finished is not done again. Writes
`results/robust_3bit.json`.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

from provenance import write_results
from rich.console import Console
from rich.table import Table
from robust.attack import COUNT, SUITE, attack_new
from robust.cost import cost, mean_cost
from robust.entry import Entry
from robust.ladder import climb, name_of

RECIPE, BITS = "mnist-cnn4-atta", 3
WAYS = ("trained", "rounded")
LARGEST_LOSS, TARGETS = 0.01, {"float": 0.93, "trained": 0.92}
"""What networks trained at 3 bits may lose against their controls, and what both have to withstand."""


def main() -> int:
    """Train, attack, compare, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/robust"), help="folder of the runs")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--count", type=int, default=COUNT, help="test images")
    parser.add_argument("--weights", nargs="+", choices=WAYS, default=WAYS, help="what is done to weights")
    options = parser.parse_args()
    for seed in options.seeds:
        made = climb(RECIPE, seed, options.runs, math.inf, (BITS,), options.weights)
        attack_new(made, options.count, SUITE, options.runs / "reports")
    document = compare(options.seeds, options.weights)
    show(document)
    print(f"wrote {write_results('robust_3bit', options.seeds[0], document)}")
    return int(not document["targets"]["met"])


def compare(seeds: Sequence[int], ways: Sequence[str]) -> dict[str, Any]:
    """Return what attacks left of each network, and what the bits cost, by seed and over all of them."""
    floats = [_entry(32, "float", seed) for seed in seeds]
    networks: dict[str, Any] = {"float": _summary(floats)}
    for weights in ways:
        entries = [_entry(BITS, weights, seed) for seed in seeds]
        networks[weights] = _summary(entries) | {"cost": _cost(entries, floats)}
    least = {name: wanted for name, wanted in TARGETS.items() if name in networks}
    met = all(networks[name]["aa_standard"] >= wanted for name, wanted in least.items())
    return {
        "recipe": RECIPE,
        "bits": BITS,
        "seeds": seeds,
        "count": floats[0]["figures"]["count"],
        "networks": networks,
        "targets": {
            "aa_standard": least,
            "cost": LARGEST_LOSS,
            "met": met and "trained" in networks and networks["trained"]["cost"]["mean"] <= LARGEST_LOSS,
        },
    }


def _entry(bits: int, weights: str, seed: int) -> dict[str, Any]:
    return asdict(Entry.read(name_of(RECIPE, bits, weights, seed)))


def _summary(entries: list[dict[str, Any]]) -> dict[str, Any]:
    """The mean over the seeds of what is left, and each of them."""
    torch, onnx = (
        [entry["figures"]["runtimes"][runtime] for entry in entries] for runtime in ("torch", "onnx")
    )
    kept = ("clean", "aa_standard", "worst_case")
    return {
        **{name: fmean(each[name] for each in torch) for name in kept},
        "as_a_file": fmean(each["aa_standard"] for each in onnx),
        "nbytes": torch[0]["nbytes"],
        "verdicts": [each["verdict"] for each in torch],
        "of_each_seed": [{name: each[name] for name in kept} for each in torch],
    }


def _cost(entries: list[dict[str, Any]], controls: list[dict[str, Any]]) -> dict[str, Any]:
    mean, low, high = mean_cost(entries, controls)
    of_each = [cost(entry, control) for entry, control in zip(entries, controls, strict=True)]
    return {"mean": mean, "interval": (low, high), "of_each_seed": of_each}


def show(document: dict[str, Any]) -> None:
    """Print the means over the seeds."""
    table = Table("", "clean", "AA standard", "as a file", "worst case", "cost of bits, points")
    for name, network in document["networks"].items():
        figures = (network[key] for key in ("clean", "aa_standard", "as_a_file", "worst_case"))
        lost = f"{100 * network['cost']['mean']:.1f}" if "cost" in network else ""
        table.add_row(name, *(f"{figure:.1%}" for figure in figures), lost)
    Console().print(table)


if __name__ == "__main__":
    sys.exit(main())
