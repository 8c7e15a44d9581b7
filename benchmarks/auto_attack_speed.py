"""How long AA standard takes here and by AutoAttack's own code (Croce, Hein 2020), on the same images.

    pip install git+https://github.com/fra31/auto-attack
    MUQUANT_DATA=... python benchmarks/auto_attack_speed.py [--threads 2]

Attacks cnn4 at 3 bits, the leaderboard's. Both sides take a hundred images in turn, and change places each
time, so that what else the machine does falls on both. The four attacks of the standard version run on each
side with their own defaults; the seconds are those of the processor. Writes `results/autoattack_speed.json`.
The exit status is 1 where this takes longer than the original.
"""

import argparse
import importlib
import sys
import time
from collections.abc import Callable

import torch
from provenance import write_results
from robust.entry import Entry
from torch import Tensor, nn

import muquant
from muquant.attacks import TorchTarget
from muquant.attacks.base import BATCH_SIZE
from muquant.base.processes import Processes
from muquant.data import load_dataset
from muquant.robustness.assessment import run_suite
from muquant.robustness.runner import Runner, Sample
from muquant.robustness.settings import MNIST
from muquant.robustness.store import Store
from muquant.robustness.suites import STANDARD_VERSION, SUITES

NET, SEED = "mnist-cnn4-atta-3-trained", 0
Side = Callable[[nn.Module, Tensor, Tensor], int]


def ours(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """How many images our standard version leaves."""
    suite = [each for each in SUITES["autoattack"](MNIST, None) if each.name in STANDARD_VERSION]
    sample = Sample(images, labels, 10)
    runner = Runner("net", TorchTarget(model), "", sample, SEED, Store(None), Processes(), lambda *_: None)
    return int(run_suite(runner, suite)[STANDARD_VERSION[-1]].withstood.sum())


def theirs(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """How many images the original leaves."""
    library = importlib.import_module("autoattack")
    made = library.AutoAttack(model, norm="Linf", eps=MNIST.epsilon, seed=SEED, device="cpu", verbose=False)
    adversarial = made.run_standard_evaluation(images, labels, bs=BATCH_SIZE)
    with torch.no_grad():
        return int((model(adversarial).argmax(1) == labels).sum())


SIDES: dict[str, Side] = {"muquant": ours, "autoattack": theirs}


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--count", type=int, default=1000, help="test images, the first ones")
    parser.add_argument("--threads", type=int, default=1, help="of both sides")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = muquant.load(Entry.read(NET).file).module.eval().requires_grad_(False)
    model.to(memory_format=torch.channels_last)
    test = load_dataset("mnist", "test")
    seconds: dict[str, list[float]] = {name: [] for name in SIDES}
    left: dict[str, list[int]] = {name: [] for name in SIDES}
    for number, start in enumerate(range(0, options.count, BATCH_SIZE)):
        rows = torch.arange(start, min(start + BATCH_SIZE, options.count))
        for name in sorted(SIDES, reverse=bool(number % 2)):
            begin = time.process_time()
            left[name].append(SIDES[name](model, test.inputs(rows), test.labels[rows]))
            seconds[name].append(time.process_time() - begin)
        spent = ", ".join(f"{name} {sum(each):.0f} s" for name, each in seconds.items())
        print(f"{rows[-1] + 1} images: {spent}", flush=True)
    ratio = sum(seconds["muquant"]) / sum(seconds["autoattack"])
    print(f"{ratio:.2f} of the original's time")
    document = {
        "net": NET,
        "epsilon": MNIST.epsilon,
        "count": options.count,
        "threads": options.threads,
        **{name: {"seconds": sum(seconds[name]), "left": sum(left[name])} for name in SIDES},
        "ratio": ratio,
        "ratios": [one / other for one, other in zip(*seconds.values(), strict=True)],
    }
    print(f"wrote {write_results('autoattack_speed', SEED, document)}")
    return int(ratio > 1)


if __name__ == "__main__":
    sys.exit(main())
