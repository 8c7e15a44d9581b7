"""What feedback learning does for cnn4 on MNIST, and how long one of its rounds takes.

    MUQUANT_DATA=... python benchmarks/feedback.py [--standard runs/mnist] [--feedback runs/mnist-feedback]

Trains where a run folder is empty (an interrupted run goes on): the standard model with the defaults of
`muquant train`, and from its weights the model of feedback learning, whose settings were chosen on held-out
training images; a third model, trained on for as many epochs without feedback, tells what the epochs alone
do. Then times one round at the paper's numbers on the standard model, and attacks all three on the test
images, in float. Writes `results/feedback.json`; the exit status is 1 where a target is missed.
"""

import argparse
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from provenance import write_results
from torch import nn

from muquant.attacks import DDN, FGSM, PGD, Attack, TorchTarget
from muquant.data import Dataset, load_dataset
from muquant.models.evaluation import evaluate
from muquant.training import TrainingConfig, load_run, read_run, train
from muquant.training.feedback import FeedbackConfig, generate
from muquant.training.feedback.journal import Journal
from muquant.training.run.data import load_run_data

STANDARD = TrainingConfig(data="mnist", model="cnn4")
FEEDBACK = replace(STANDARD, method="feedback", feedback=FeedbackConfig(start=0.0), epochs=12, lr=1e-3)
CONTROL = replace(FEEDBACK, method="standard", feedback=None)

DISTANCE = DDN()
ATTACKS: dict[str, Attack] = {
    "FGSM, Linf 0.1": FGSM(epsilon=0.1),
    "FGSM, Linf 0.2": FGSM(epsilon=0.2),
    "PGD-40 on the logit margin, Linf 0.1": PGD(epsilon=0.1, steps=40, loss="margin"),
}
ATTACKED, SEED = 1000, 0
MINUTES, CLEAN, FURTHER, POINTS = 5, 0.99, 1.3, 0.15
"""The targets: a round takes at most so long; of the model of feedback learning the accuracy, its DDN median
over that of the standard model, and its accuracy under FGSM (0.1) above that of the standard model."""


def main() -> int:
    """Train, measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--standard", type=Path, default=Path("runs/mnist"), help="run folder")
    parser.add_argument("--feedback", type=Path, default=Path("runs/mnist-feedback"), help="run folder")
    parser.add_argument("--control", type=Path, default=Path("runs/mnist-longer"), help="run folder")
    parser.add_argument("--precision", default="float32", help="of training")
    options = parser.parse_args()

    folders = {
        "standard": options.standard,
        "feedback": options.feedback,
        "standard, longer": options.control,
    }
    for name, config in zip(folders, (STANDARD, FEEDBACK, CONTROL), strict=True):
        start = None if name == "standard" else options.standard
        train(replace(config, precision=options.precision), folders[name], init=start, resume=True)

    test = load_dataset("mnist", "test")
    attacked = test.subset(torch.arange(ATTACKED) * len(test) // ATTACKED)
    document: dict[str, Any] = {"count": len(test), "attacked": ATTACKED, "threads": torch.get_num_threads()}
    document["round"] = time_round(load_model(options.standard))
    print(f"one round: {document['round']['seconds']:.0f} s, {document['round']['examples']} examples")
    document["models"] = {}
    for name, folder in folders.items():
        figures = measure(load_model(folder), test, attacked)
        document["models"][name] = {"config": asdict(read_run(folder).config), **figures}
        print(f"{name}: {figures}")
    journal = Journal(options.feedback / "feedback", test.classes, FeedbackConfig().cap)
    document["rounds"] = [asdict(record) for record in journal.records()]
    document["targets"] = compare(document)
    for target, (found, met) in document["targets"].items():
        print(f"{'met' if met else 'MISSED':6} {target}: {found:.4g}")
    print(f"wrote {write_results('feedback', SEED, document)}")
    return 0 if all(met for _, met in document["targets"].values()) else 1


def load_model(folder: Path) -> nn.Module:
    """A finished run's model, as it is fastest on a CPU."""
    return load_run(folder).requires_grad_(False).to(memory_format=torch.channels_last)


def time_round(model: nn.Module) -> dict[str, Any]:
    """Make one round at the paper's numbers."""
    part = load_run_data(STANDARD).train
    start, busy = time.perf_counter(), time.process_time()
    made = generate(model, part, FeedbackConfig(), SEED, 1)
    return {
        "seconds": time.perf_counter() - start,
        "processor_seconds": time.process_time() - busy,
        "seed_samples": len(set(made.sources.tolist())),
        "examples": len(made),
        "forwards": made.forwards,
    }


def measure(model: nn.Module, test: Dataset, attacked: Dataset) -> dict[str, Any]:
    """Accuracy, DDN's median distance (0 for images that are misclassified as they are), attacks."""
    target, inputs = TorchTarget(model), attacked.inputs()
    nearest = DISTANCE.attack(target, inputs, attacked.labels, seed=SEED)
    distance = torch.where(nearest.attacked & ~nearest.success, torch.inf, nearest.l2)
    return {
        "accuracy": evaluate(model, test),
        "ddn_median_l2": float(distance.median()),
        "accuracy_under": {
            name: attack.attack(target, inputs, attacked.labels, seed=SEED).accuracy
            for name, attack in ATTACKS.items()
        },
    }


def compare(document: dict[str, Any]) -> dict[str, tuple[float, bool]]:
    """Each target -> (what was found, whether that meets it)."""
    standard, feedback = (document["models"][name] for name in ("standard", "feedback"))
    seconds, accuracy = document["round"]["seconds"], feedback["accuracy"]
    ratio = feedback["ddn_median_l2"] / standard["ddn_median_l2"]
    first = next(iter(ATTACKS))
    gain = feedback["accuracy_under"][first] - standard["accuracy_under"][first]
    return {
        f"seconds of a round, at most {60 * MINUTES}": (seconds, seconds <= 60 * MINUTES),
        f"test accuracy of feedback learning, at least {CLEAN}": (accuracy, accuracy >= CLEAN),
        f"median L2 of DDN over the standard model's, at least {FURTHER}": (ratio, ratio >= FURTHER),
        f"accuracy under {first} above the standard model's, at least {POINTS}": (gain, gain >= POINTS),
    }


if __name__ == "__main__":
    sys.exit(main())
