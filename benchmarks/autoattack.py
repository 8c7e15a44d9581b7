"""APGD-CE and APGD-T against those of AutoAttack (Croce, Hein 2020), as torchattacks packages them.

    pip install --no-deps torchattacks==3.5.1     # its own requirement is an old version of requests
    MUQUANT_DATA=... python benchmarks/autoattack.py

Trains two small networks on MNIST where the folder has none (five minutes), then attacks the same images in
Linf and L2 with the same steps, targets and batches. Writes `results/autoattack.json`; the exit status is 1
where two accuracies, means over five random starts, differ by more than 0.5 points: one start moves a figure
by as much. The epsilons were chosen on training images, so that some images withstand and some do not.

In L2 torchattacks' APGD-T takes the step size of a batch's first image for all. AutoAttack's own code takes
each image's, and so does what is compared here. An interrupted run goes on.
"""

import argparse
import importlib
import inspect
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from attack_nets import FOLDER, SEED, Fixture, fixture
from provenance import write_results
from torch import Tensor

from muquant.attacks import APGDCE, APGDT, Norm, TorchTarget
from muquant.base.files import make_folder, write_json
from muquant.base.reading import read_json

STEPS, TARGETS, BATCH = 100, 9, 100
SEEDS = 5
"""Random starts."""

IMAGES = {"apgd-ce": 1000, "apgd-t": 500}

ALLOWED = 0.5
"""Percentage points."""


@dataclass(frozen=True)
class Case:
    """A network and a threat."""

    net: str
    norm: Norm
    epsilon: float


CASES = (
    Case("ordinary", "linf", 0.1),
    Case("ordinary", "l2", 1.5),
    Case("robust", "linf", 0.3),
    Case("robust", "l2", 2.5),
)


def ours(attack: str, case: Case, data: Fixture, seed: int) -> Tensor:
    """Which images are classified correctly and withstand our attack, bool [N]."""
    made = {
        "apgd-ce": APGDCE(epsilon=case.epsilon, norm=case.norm, steps=STEPS),
        "apgd-t": APGDT(epsilon=case.epsilon, norm=case.norm, steps=STEPS, targets=TARGETS),
    }[attack]
    result = made.attack(TorchTarget(data.model), data.images, data.labels, seed=seed, batch_size=BATCH)
    return result.attacked & ~result.success


def theirs(attack: str, case: Case, data: Fixture, seed: int) -> Tensor:
    """The same for torchattacks."""
    library = importlib.import_module("torchattacks")
    common = {"eps": case.epsilon, "norm": {"linf": "Linf", "l2": "L2"}[case.norm], "steps": STEPS}
    made: Callable[[Tensor, Tensor], Tensor] = {
        "apgd-ce": lambda: library.APGD(data.model, **common, loss="ce", seed=seed),
        "apgd-t": lambda: mended_apgdt()(data.model, **common, n_classes=TARGETS + 1, seed=seed),
    }[attack]()
    withstood = []
    for start in range(0, len(data.labels), BATCH):
        images, labels = data.images[start : start + BATCH], data.labels[start : start + BATCH]
        adversarial = made(images, labels)
        outside = adversarial.sub(images).flatten(1).norm(torch.inf if case.norm == "linf" else 2, dim=1)
        assert float(outside.detach().max()) <= case.epsilon + 1e-5
        with torch.no_grad():
            withstood.append(data.model(adversarial).argmax(1) == labels)
    return torch.cat(withstood)


def mended_apgdt() -> Any:
    """torchattacks' APGD-T with each image's own step size in L2."""
    module = importlib.import_module("torchattacks.attacks.apgdt")
    source, fault, mended = inspect.getsource(module), "step_size[0] * grad", "step_size * grad"
    assert source.count(fault) == 1, "torchattacks changed; see whether there is still something to mend"
    names = {"__name__": module.__name__, "__package__": module.__package__}
    exec(source.replace(fault, mended), names)  # noqa: S102  # the library's own code, but for one index
    return names["APGDT"]


def finished(attack: str, case: Case, folder: Path, count: int) -> dict[str, Any]:
    """The row of the results, from the folder where it was finished before."""
    name = "-".join(map(str, (*asdict(case).values(), attack, count, STEPS, SEEDS)))
    path = folder / "autoattack" / f"{name}.json"
    if not path.exists():
        make_folder(path.parent)
        write_json(path, compare(attack, case, fixture(case.net, folder, count), SEEDS))
    row: dict[str, Any] = read_json(path)
    return row


def compare(attack: str, case: Case, data: Fixture, seeds: int) -> dict[str, Any]:
    """One row of the results."""
    sides = {
        name: torch.stack([side(attack, case, data, SEED + number) for number in range(seeds)])
        for name, side in (("muquant", ours), ("torchattacks", theirs))
    }
    accuracy = {name: (100 * left.double().mean(1)).tolist() for name, left in sides.items()}
    always = {name: left.all(0) for name, left in sides.items()}
    row = {
        **asdict(case),
        "attack": attack,
        "accuracy_percent": accuracy,
        "difference_points": mean(accuracy["muquant"]) - mean(accuracy["torchattacks"]),
        "only_muquant_fools": int((always["torchattacks"] & ~always["muquant"]).sum()),
        "only_torchattacks_fools": int((always["muquant"] & ~always["torchattacks"]).sum()),
    }
    print(
        f"{case.net:8} {case.norm:4} {case.epsilon:<4} {attack:7} "
        + ", ".join(f"{name} {'/'.join(f'{value:.1f}' for value in accuracy[name])} %" for name in accuracy),
        flush=True,
    )
    return row


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nets", type=Path, default=FOLDER, help="folder of the trained networks")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for case in CASES:
        for attack, count in IMAGES.items():
            rows.append(finished(attack, case, options.nets, count))
    largest = max(abs(row["difference_points"]) for row in rows)
    document = {
        "count": IMAGES,
        "seeds": SEEDS,
        "steps": STEPS,
        "targets": TARGETS,
        "batch_size": BATCH,
        "torchattacks": version("torchattacks"),
        "allowed_points": ALLOWED,
        "largest_difference_points": largest,
        "rows": rows,
    }
    print(f"largest difference {largest:.2f} points; wrote {write_results('autoattack', SEED, document)}")
    return int(largest > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
