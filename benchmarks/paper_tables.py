"""The source's tables, ours beside them: 12 networks and 5 of ours against 13 attacks and a worst case.

    MUQUANT_DATA=... python benchmarks/paper_tables.py --data mnist
    MUQUANT_DATA=... python benchmarks/paper_tables.py --data cifar10 [--images folder:data/cifar10]

Trains what is missing in the run folders (`paper/recipes.py` says how), makes the rows (`paper/networks.py`)
and attacks them (`paper/attacks.py`) with the suites `seed` and `headline` and all masking checks, in as many
processes as there are cores, or on one GPU. All of it is kept: started again, it goes on, and whoever changes
a page runs it again in seconds. After each row it writes `results/paper_MODEL.json`, `.md`, `.html` and
`.png`, where every cell is `ours (source)`. On two cores MNIST takes three hours, CIFAR-10 a night, or three
hours with `--iterative 100 --cw 0 --whole 1000`. The exit status is 1 where a target is missed, 75 where
`--max-seconds` ended a training.

`--images` names what stands in for CIFAR-10 where that cannot be had, such as the same images as JPEG files
in a folder for each class. `--model` picks another size of recipe.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from paper.attacks import Bench, Counts
from paper.networks import ROWS, Made, subject
from paper.pages import write_pages
from paper.recipes import MODELS, RECIPES, Recipe, Run
from paper.targets import targets
from provenance import RESULTS, write_results
from rich.console import Console
from torchrun import CORES, ONE_THREAD, torchrun

from muquant.attacks import TorchTarget
from muquant.data import load_dataset
from muquant.devices import find_device
from muquant.robustness import join_processes, settings_for
from muquant.training import OutOfTime, Progress, train

UNFINISHED = 75
SEED = 0


def main() -> int:
    """Train, attack, write."""
    options = arguments()
    recipe = with_images(RECIPES[options.model or MODELS[options.data]], options.images)
    if "WORLD_SIZE" not in os.environ:  # not one of several processes yet
        try:
            train_all(recipe, options)
        except OutOfTime as stopped:
            print(stopped)
            return UNFINISHED
        if options.train_only:
            return 0
        if find_device("auto").type == "cpu":
            return attack_in_processes(options.processes)
    return attack_all(recipe, options)


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--data", choices=MODELS, required=True)
    parser.add_argument("--model", choices=RECIPES, help="whose recipe; by default what two cores can train")
    parser.add_argument("--images", help="data set that is read instead, such as folder:PATH")
    parser.add_argument("--runs", type=Path, help="folder of the runs [runs/paper-MODEL]")
    parser.add_argument(
        "--rows", nargs="+", choices=ROWS, default=list(ROWS), metavar="ROW", help="only these"
    )
    parser.add_argument("--iterative", type=int, default=1000, help="test images for iterative attacks")
    parser.add_argument("--cw", type=int, default=200, help="and for Carlini and Wagner's, 0 for none")
    parser.add_argument("--whole", type=int, help="and for single steps and noise [all]")
    parser.add_argument("--processes", type=int, default=CORES, help="that attack on a CPU")
    parser.add_argument("--train-only", action="store_true", help="attack nothing")
    parser.add_argument("--max-seconds", type=float, default=float("inf"), help="of training, in this call")
    options = parser.parse_args()
    options.runs = options.runs or Path(f"runs/paper-{options.model or MODELS[options.data]}")
    return options


def with_images(recipe: Recipe, images: str | None) -> Recipe:
    """The recipe, on other images."""
    if images is None:
        return recipe
    runs = {name: Run(replace(run.config, data=images), run.init) for name, run in recipe.runs.items()}
    return replace(recipe, runs=runs)


def needed(recipe: Recipe, rows: list[str]) -> list[str]:
    """The runs that rows are made from, in the order in which they are trained."""
    names = {"surrogate", *(ROWS[row][0] for row in rows)}
    for name, run in reversed(list(recipe.runs.items())):
        if name in names and run.init is not None:
            names.add(run.init)
    return [name for name in recipe.runs if name in names]


def train_all(recipe: Recipe, options: argparse.Namespace) -> None:
    """Train what is not trained yet.

    Raises:
        OutOfTime: `--max-seconds` have passed.
    """
    end = time.monotonic() + options.max_seconds
    for name in needed(recipe, options.rows):
        run = recipe.runs[name]
        train(
            run.config,
            options.runs / name,
            init=None if run.init is None else options.runs / run.init,
            resume=True,
            max_seconds=max(end - time.monotonic(), 0.0),
            on_progress=say_epochs(name),
        )


def say_epochs(name: str) -> Callable[[Progress], None]:
    """Prints a line for each epoch."""
    said = 0

    def say(progress: Progress) -> None:
        nonlocal said
        epoch = progress.last_epoch
        if epoch is None or epoch.epoch == said:
            return
        said = epoch.epoch
        held_out = {"held out": epoch.validation_accuracy, "under attack": epoch.robust_accuracy}
        figures = ", ".join(f"{words} {share:.2%}" for words, share in held_out.items() if share is not None)
        print(f"{name}: epoch {said} of {progress.epochs}, {figures}, {epoch.seconds:.0f} s", flush=True)

    return say


def attack_in_processes(count: int) -> int:
    """Run this script again, so many times side by side, with a thread each."""
    return subprocess.run([*torchrun(count), *sys.argv], env=os.environ | ONE_THREAD, check=False).returncode


def attack_all(recipe: Recipe, options: argparse.Namespace) -> int:
    """Measure row by row, and write after each what there is."""
    console, device = Console(), find_device("auto")
    made, orig = Made(recipe, options.runs), recipe.runs["orig"].config
    settings = settings_for(options.data)
    dataset = load_dataset(orig.data, "test")
    surrogate = TorchTarget(made.run("surrogate").to(device))
    counts = Counts(options.iterative, options.cw, options.whole)
    processes = join_processes(device)
    first = processes.rank == 0
    with console.status("Attacking") as status:

        def on_batch(title: str, done: int, total: int) -> None:
            if first:
                status.update(f"{title}: {done} of {total} images")

        bench = Bench(
            settings, dataset, surrogate, counts, SEED, options.runs / "attacks", processes, on_batch
        )
        document: dict[str, Any] = {
            "data": options.data,
            "images": orig.data,
            "model": orig.model,
            "said": recipe.said,
            "mapping": {"layers": recipe.layers, "mu": recipe.mu},
            "counts": {**asdict(counts), "whole": counts.whole or len(dataset)},
            "settings": asdict(settings),
            "processes": processes.count,
            "device": device.type,
            "runs": {name: asdict(run) for name, run in recipe.runs.items()},
            "rows": {},
        }
        for row in options.rows:
            network = processes.share(subject(made, row) if first else None)
            assert network is not None
            assert network.module is not None
            network.module.to(device)
            document["rows"][row] = bench.measure(network)
            if first:
                console.print(line(document["rows"][row]), soft_wrap=True)
                document["targets"] = targets(document)
                write(document)
    if not first:
        return 0
    for target in document["targets"]:
        console.print(f"{'met' if target['met'] else 'MISSED':6} {target['target']}: {target['found']}")
    return int(not all(target["met"] for target in document["targets"]))


def line(row: dict[str, Any]) -> str:
    """A row in a few words."""
    attacks = row["attacks"]
    return (
        f"{row['name']:20} clean {attacks['clean']['accuracy']:.2%}, PGD {attacks['pgd']['accuracy']:.1%}, "
        f"on the margin {attacks['pgd-margin']['accuracy']:.1%}, worst case {row['worst_case']:.1%}, "
        f"{row['verdict']}"
    )


def write(document: dict[str, Any]) -> None:
    """The results and their pages."""
    path = write_results(f"paper_{document['model']}", SEED, document)
    write_pages(path, RESULTS)


if __name__ == "__main__":
    sys.exit(main())
