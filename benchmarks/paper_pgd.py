"""Which PGD gives the source's rows of Orig. and F.L.: epsilon, steps and step size, swept.

    MUQUANT_DATA=... python benchmarks/paper_pgd.py [--runs runs/paper-cnn4] [--count 300]

The source leaves 40 % of F.L. under PGD on MNIST, and 4 % of Orig.; with its settings as stated, ours leave
nothing, while FGSM agrees. Every setting of the sweep is tried on both networks, which are trained by the
recipe of `paper_tables.py` where the run folders are empty. A setting explains the source where it leaves of
both what is published, to within `NEAR`. Writes `results/paper_pgd.json` and a picture beside it; a
setting that was measured before is kept.
"""

import argparse
import itertools
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from paper.networks import Made
from paper.published import published
from paper.recipes import RECIPES
from provenance import RESULTS, write_results

from muquant.attacks import FGSM, PGD, Attack, TorchTarget
from muquant.base.files import write_json
from muquant.base.picture import BLUE, ORANGE, write_picture
from muquant.base.reading import read_json
from muquant.data import Dataset, load_dataset
from muquant.training import train

SEED = 0
NETWORKS = {"Orig.": "orig", "F.L.": "fl"}
"""Row of the source -> run of the recipe."""
EPSILONS = (0.1, 0.15, 0.2, 0.3)
STEPS = (1, 2, 3, 5, 10, 20, 40)
SIZES = (0.0025, 0.01, 0.03, 0.1, 0.3)
"""Of the sweep, from a random start; a step may be as long as epsilon, not longer."""
NEAR = 0.05
"""How far from the published share a setting may leave both networks, in shares of the images."""


def settings() -> dict[str, Attack]:
    """Every attack that is tried, by what it is called."""
    attacks: dict[str, Attack] = {f"FGSM, {epsilon:g}": FGSM(epsilon=epsilon) for epsilon in EPSILONS}
    for epsilon, steps, size in itertools.product(EPSILONS, STEPS, SIZES):
        if size <= epsilon:
            name = f"PGD, {epsilon:g}, {steps} x {size:g}"
            attacks[name] = PGD(epsilon=epsilon, steps=steps, step_size=size)
    return attacks


def main() -> None:
    """Train, sweep, compare, draw, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/paper-cnn4"), help="folder of the runs")
    parser.add_argument("--count", type=int, default=300, help="test images")
    options = parser.parse_args()
    made = Made(RECIPES["cnn4"], options.runs)
    for run in NETWORKS.values():
        recipe = made.recipe.runs[run]
        init = None if recipe.init is None else options.runs / recipe.init
        train(recipe.config, options.runs / run, init=init, resume=True)
    test = load_dataset("mnist", "test").evenly(options.count)
    left = sweep(made, test, options.runs / "pgd-sweep.json")
    document = {"count": len(test), "near": NEAR, **compare(left)}
    print(f"{len(document['both'])} of {len(left)} settings leave both networks what the source states")
    draw(left, RESULTS / "paper_pgd.png")
    print(f"wrote {write_results('paper_pgd', SEED, document)}")


def sweep(made: Made, test: Dataset, kept: Path) -> dict[str, dict[str, float]]:
    """Return setting -> row -> the share of the images that it leaves, what was kept of them included."""
    whose = {row: f"{made.digest(run)} {len(test)}" for row, run in NETWORKS.items()}
    known = read_json(kept) if kept.exists() else {}
    left: dict[str, dict[str, float]] = known.get("left", {}) if known.get("whose") == whose else {}
    targets = {row: TorchTarget(made.run(run)) for row, run in NETWORKS.items()}
    attacks = settings()
    for number, (name, attack) in enumerate(attacks.items(), start=1):
        if name in left:
            continue
        left[name] = {
            row: attack.attack(target, test.inputs(), test.labels, seed=SEED).accuracy
            for row, target in targets.items()
        }
        print(f"{number} of {len(attacks)}: {name}: {left[name]}", flush=True)
        write_json(kept, {"whose": whose, "left": left})
    return left


def compare(left: dict[str, dict[str, float]]) -> dict[str, Any]:
    """Say which settings leave what the source states, of both networks and of each."""
    stated = {row: published("mnist", "white_box", row, "PGD") for row in NETWORKS}

    def distance(found: dict[str, float]) -> float:
        return max(abs(found[row] - (share or 0.0)) for row, share in stated.items())

    ranked = sorted(left, key=lambda name: distance(left[name]))
    return {
        "stated": stated,
        "both": [name for name in ranked if distance(left[name]) <= NEAR],
        "nearest": {name: {**left[name], "distance": distance(left[name])} for name in ranked[:10]},
        "settings": left,
    }


def draw(left: dict[str, dict[str, float]], path: Path) -> None:
    """Draw what each setting leaves of F.L. against what it leaves of Orig., and where the source is."""
    figure = Figure(figsize=(6, 5), layout="constrained")
    axes = figure.subplots()
    for kind, colour in (("PGD", BLUE), ("FGSM", ORANGE)):
        points = [each for name, each in left.items() if name.startswith(kind)]
        axes.plot(
            [100 * each["Orig."] for each in points],
            [100 * each["F.L."] for each in points],
            ".",
            color=colour,
            label=f"{kind}, each setting",
        )
    for column, mark in (("FGSM (w)", "^"), ("FGSM (s)", "v"), ("PGD", "*"), ("BIM", "s"), ("MIM", "D")):
        place = [100 * (published("mnist", "white_box", row, column) or 0.0) for row in NETWORKS]
        axes.plot(*place, mark, color="black", markersize=9, label=f"{column}, the source")
    axes.plot([0, 100], [0, 100], "--", color="#9aa7b4", linewidth=1)
    axes.set_xlabel("left of Orig., %")
    axes.set_ylabel("left of F.L., %")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8)
    write_picture(figure, path)


if __name__ == "__main__":
    main()
