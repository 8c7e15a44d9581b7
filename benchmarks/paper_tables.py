"""The source's tables, ours beside them: 12 networks and 5 of ours against 13 attacks and a worst case.

    MUQUANT_DATA=... python benchmarks/paper_tables.py --data mnist
    MUQUANT_DATA=... python benchmarks/paper_tables.py --data cifar10 [--images folder:data/cifar10]

Trains what is missing in the run folders (`paper/recipes.py` says how), makes the rows (`paper/networks.py`)
and attacks them (`paper/attacks.py`) with the suites `seed` and `headline` and all masking checks, in as many
processes as there are cores, or on one GPU. After each row it writes `results/paper_MODEL.json`, `.md`,
`.html` and `.png`, where every cell is `ours (source)`. Started again, it goes on: a row of that file stays
while its network, attacks and counts are the same, and `--rows` adds to the others, also from a second call
beside the first. On two cores MNIST takes three and a half hours, nearly half of them for Carlini and
Wagner's attack, and CIFAR-10 a night, or three hours with `--iterative 100 --cw 0 --whole 1000`. The exit
status is 1 where a target is missed, 75 where `--max-seconds` ended training.

`--images` names what stands in for CIFAR-10 where that cannot be had, such as the same images as JPEG files
in a folder for each class. `--model` picks another size of recipe.
"""

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from paper.attacks import Bench, Counts
from paper.networks import ROWS, Made, subject
from paper.pages import write_pages
from paper.recipes import MODELS, RECIPES, Recipe, Run
from paper.targets import targets
from provenance import RESULTS, commit, write_results
from rich.console import Console
from torchrun import CORES, ONE_THREAD, torchrun

from muquant.attacks import TorchTarget
from muquant.base.devices import computes_bf16, find_device
from muquant.base.processes import join_processes
from muquant.base.provenance import provenance
from muquant.base.reading import read_json
from muquant.data import load_dataset
from muquant.robustness import settings_for
from muquant.training import OutOfTime, TrainingProgress, train

UNFINISHED = 75
SEED = 0


def main() -> int:
    """Train, attack, write."""
    options = arguments()
    recipe = with_images(RECIPES[options.model or MODELS[options.data]], options.images)
    recipe = with_precision(recipe, options.runs)
    if "WORLD_SIZE" in os.environ:  # one of several processes
        attack_all(recipe, options)
        return 0
    try:
        train_all(recipe, options)
    except OutOfTime as stopped:
        print(stopped)
        return UNFINISHED
    if options.train_only:
        return 0
    if find_device("auto").type != "cpu":
        attack_all(recipe, options)
    elif failed := attack_in_processes(options.processes):
        return failed
    return judge(read_json(results_file(recipe.runs["orig"].config.model))["targets"])


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


def with_precision(recipe: Recipe, folder: Path) -> Recipe:
    """The recipe with each run in the arithmetic in which it was begun, or else in one that is fast here."""
    fast = computes_bf16(find_device("auto"))

    def settled(name: str, run: Run) -> Run:
        begun = folder / name / "config.json"
        precision = run.config.precision if fast else "float32"
        if begun.exists():
            precision = read_json(begun)["config"]["precision"]
        return Run(replace(run.config, precision=precision), run.init)

    return replace(recipe, runs={name: settled(name, run) for name, run in recipe.runs.items()})


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


def say_epochs(name: str) -> Callable[[TrainingProgress], None]:
    """Prints a line for each epoch."""
    said = 0

    def say(progress: TrainingProgress) -> None:
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
    """Run this script again, so many times side by side, with a thread each; returns its exit status."""
    return subprocess.run([*torchrun(count), *sys.argv], env=os.environ | ONE_THREAD, check=False).returncode


def attack_all(recipe: Recipe, options: argparse.Namespace) -> None:
    """Measure row by row, and write after each what there is."""
    console, processes = Console(), join_processes("auto")
    device = processes.device
    made, orig = Made(recipe, options.runs), recipe.runs["orig"].config
    settings = settings_for(options.data)
    dataset = load_dataset(orig.data, "test")
    surrogate = TorchTarget(made.run("surrogate").to(device))
    counts = Counts(options.iterative, options.cw, options.whole)
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
            "images_digest": dataset.digest,
            "model": orig.model,
            "said": recipe.said,
            "mapping": {"layers": recipe.layers, "mu": recipe.mu},
            "counts": {**asdict(counts), "whole": counts.whole or len(dataset)},
            "settings": asdict(settings),
            "processes": processes.count,
            "device": device.type,
            "runs": {name: asdict(run) for name, run in recipe.runs.items()},
        }
        digests = {name: made.digest(name) for name in recipe.runs} if first else {}
        known = processes.share(rows_of_file(document, bench, digests) if first else None)
        assert known is not None
        for name in options.rows:
            network = processes.share(subject(made, name) if first else None)
            assert network is not None
            assert network.module is not None
            network.module.to(device)
            row = bench.measure(network, known.get(name))
            if first:
                console.print(line(row), soft_wrap=True)
                if row != known.get(name):
                    row.update(trained=digests[ROWS[name][0]], **where_and_when())
                rows = {**rows_of_file(document, bench, digests), name: row}
                document["rows"] = {name: rows[name] for name in ROWS if name in rows}
                document["targets"] = targets(document)
                write(document)


def judge(found: list[dict[str, Any]]) -> int:
    """Say which targets are met; returns the exit status."""
    for target in found:
        print(f"{'met' if target['met'] else 'MISSED':6} {target['target']}: {target['found']}")
    return int(not all(target["met"] for target in found))


def rows_of_file(document: dict[str, Any], bench: Bench, digests: Mapping[str, str | None]) -> dict[str, Any]:
    """The rows that the results file has, of the same attacks on the same images and networks.

    Args:
        document: what is measured.
        bench: which measures it.
        digests: of the trained networks; None for one that is not there to be looked at, such as one of
            another machine, which counts as the same.
    """
    path = results_file(document["model"])
    if not path.exists():
        return {}
    found, asked = read_json(path), {**document, "seed": SEED}
    if any(found[key] != asked[key] for key in ("data", "images_digest", "settings", "seed")):
        return {}
    return {
        name: row
        for name, row in found["rows"].items()
        if bench.holds(row) and digests[ROWS[name][0]] in (None, row["trained"])
    }


def results_file(model: str) -> Path:
    """Where the table of a model is."""
    return RESULTS / f"paper_{model}.json"


def where_and_when() -> dict[str, str]:
    """Of a row: others may be of another day and machine."""
    found = provenance(sys.argv)
    return {"commit": commit(), "date": found["date"], "processor": found["processor"]}


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
    path = write_results(results_file(document["model"]).stem, SEED, document)
    write_pages(path, RESULTS)


if __name__ == "__main__":
    sys.exit(main())
