"""How much of a robust network's robustness 3 bits keep: trained for them, and plainly rounded.

    MUQUANT_DATA=... python benchmarks/robust_3bit.py [--runs runs/robust-3bit] [--count 1000]

Trains cnn4 on MNIST adversarially in float, and on from there at 3 bits in every layer, where the run folders
are empty; both keep the epoch that was best on held-out training images. Then attacks the float network, its
plain roundings to 3 bits and the trained 3-bit network with suite `headline`, in as many processes as there
are cores; an hour on two of them, and as long for each training. Writes `results/robust_3bit.json`, and keeps
the 3-bit network in the leaderboard (`robust/`), where anyone can attack it again without training.
"""

import argparse
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

from provenance import write_results
from rich.console import Console
from rich.table import Table
from robust.entry import Entry, add, digest
from robust.ladder import AUTHOR
from torchrun import ONE_THREAD, torchrun

import muquant
from muquant.training import AdversarialOptions, QatOptions, TrainingConfig, train

NAME = "mnist-cnn4-adversarial-3-trained"
FLOAT = TrainingConfig(
    method="adversarial",
    epochs=12,
    lr=3e-3,
    weight_decay=0.01,
    augment="none",
    precision="bf16",
    keep="best",
    adversarial=AdversarialOptions(attack_steps=7),
)
QAT = replace(
    FLOAT, lr=2e-3, qat=QatOptions(), adversarial=AdversarialOptions(attack_steps=7, epsilon_warmup=0.1)
)
ATTACKS = ("apgd-ce", "apgd-t", "square")
LARGEST_LOSS, LEAST = 0.02, 0.88
"""What the 3-bit network may lose against the float one, and what it must withstand."""


def main() -> int:
    """Train, attack, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/robust-3bit"), help="folder of the runs")
    parser.add_argument("--count", type=int, default=1000, help="test images")
    options = parser.parse_args()
    runs = options.runs
    trained = train(FLOAT, runs / "float", resume=True)
    quantized = train(QAT, runs / "qat", init=runs / "float", resume=True)
    models = {
        "float": runs / "float",
        "rounded": runs / "rounded.mq",
        "paper rounding": runs / "paper.mq",
        "trained at 3 bits": runs / f"{NAME}.mq",
    }
    muquant.compress(trained.model, flat=True).save(models["rounded"])
    muquant.compress(trained.model, muquant.SOURCE_SPEC, observer="absmax", flat=True).save(
        models["paper rounding"]
    )
    muquant.compress(quantized.model).save(models["trained at 3 bits"])
    report = attack(models, options.count, runs / "report")
    figures = {model["name"]: figures_of(model) for model in report["models"]}
    loss = figures["float"]["worst_case"] - figures["trained at 3 bits"]["worst_case"]
    met = loss <= LARGEST_LOSS and figures["trained at 3 bits"]["worst_case"] >= LEAST
    show(figures)
    document = {
        "count": options.count,
        "threat": report["threat"],
        "suite": report["suite"],
        "sample": report["data"],
        "attacks_of_the_worst_case": list(ATTACKS),
        "held_out_robust_accuracy": {
            "float": trained.kept.robust_accuracy,
            "trained at 3 bits": quantized.kept.robust_accuracy,
        },
        "lost_points": 100 * loss,
        "targets": {"lost_points": 100 * LARGEST_LOSS, "worst_case": LEAST, "met": met},
        "models": figures,
    }
    path = write_results("robust_3bit", FLOAT.seed, document)
    keep(models["trained at 3 bits"])
    print(f"wrote {path}, and the entry {NAME} of the leaderboard, to be attacked by leaderboard.py")
    return int(not met)


def attack(models: dict[str, Path], count: int, out: Path) -> dict[str, Any]:
    """The report of `muquant bench`, which takes finished attacks from its folder."""
    command = [*torchrun(), "-m", "muquant_cli", "bench"]
    command += [f"{name}={path}" for name, path in models.items()]
    command += ["--data", "mnist", "--suite", "headline", "--runtime", "torch", "--limit", str(count)]
    subprocess.run([*command, "--out", out], env=os.environ | ONE_THREAD, check=True)
    report: dict[str, Any] = json.loads((out / "report.json").read_text())
    return report


def figures_of(model: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a model's report."""
    kept = ("clean", "worst_case", "worst_case_interval", "verdict", "bits", "nbytes", "seconds")
    return {
        **{key: model[key] for key in kept},
        "attacks": {
            name: {key: found[key] for key in ("accuracy", "median_l2", "queries")}
            for name, found in model["attacks"].items()
        },
        "flags": {flag["check"]: flag["explanation"] for flag in model["flags"]},
    }


def show(figures: dict[str, dict[str, Any]]) -> None:
    """Print accuracies."""
    table = Table("", "clean", *ATTACKS, "worst case", "robustness")
    for name, model in figures.items():
        accuracies = [model["clean"], *(model["attacks"][attack]["accuracy"] for attack in ATTACKS)]
        cells = [f"{accuracy:.1%}" for accuracy in (*accuracies, model["worst_case"])]
        table.add_row(name, *cells, model["verdict"])
    Console().print(table)


def keep(path: Path) -> None:
    """Keep the 3-bit network among those of the leaderboard."""
    entry = Entry(
        name=NAME,
        data="mnist",
        norm="linf",
        epsilon=0.3,
        weights="trained",
        made_by="python benchmarks/robust_3bit.py",
        author=AUTHOR,
        control=None,
        sha256=digest(path),
    )
    add(entry, path, keep=True)


if __name__ == "__main__":
    sys.exit(main())
