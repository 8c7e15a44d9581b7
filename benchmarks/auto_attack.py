"""APGD-CE, APGD-T, FAB-T and the whole of "AA standard" against AutoAttack's own code (Croce, Hein 2020).

    pip install git+https://github.com/fra31/auto-attack
    MUQUANT_DATA=... python benchmarks/auto_attack.py

Trains two small networks on MNIST where the folder has none (five minutes). Then both sides attack the same
images in the same batches from the same random numbers, and those on which they disagree are counted. There
networks compute in double precision, so that the rounding of kernels, which depends on how many images are
left in a batch, does not decide; images, losses and steps are float32. Square draws windows for each image
here and for a whole batch there, so that it can only be compared by what is left: the standard version is run
once on each side, in float32 on one thread, with its processor time. Writes `results/autoattack.json`.
"""

import argparse
import importlib
import json
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from attack_nets import FOLDER, SEED, Fixture, fixture
from provenance import write_results
from torch import Tensor, nn

from muquant.attacks import APGDCE, APGDT, FABT, Attack, Norm, TorchTarget
from muquant.attacks.base import BATCH_SIZE
from muquant.base.processes import Processes
from muquant.base.seeds import derive_seed
from muquant.robustness.assessment import run_suite
from muquant.robustness.runner import Runner, Sample
from muquant.robustness.settings import MNIST
from muquant.robustness.store import Store
from muquant.robustness.suites import STANDARD_VERSION, SUITES

STEPS = 100
TARGETS: dict[Norm, int] = {"linf": 9, "l2": 9, "l1": 1}
"""In L1 their code draws numbers that it does not use: only for one class do both sides draw the same."""

ALLOWED = 0.01
"""Share of the images that only their code may fool: where hundreds of steps end is up to rounding."""

NAMES: dict[Norm, str] = {"linf": "Linf", "l2": "L2", "l1": "L1"}


@dataclass(frozen=True)
class Case:
    """A network and a threat, chosen so that some images withstand and some do not."""

    net: str
    norm: Norm
    epsilon: float


CASES = (
    Case("ordinary", "linf", 0.1),
    Case("ordinary", "l2", 1.5),
    Case("robust", "linf", 0.3),
    Case("robust", "l2", 1.5),
    Case("robust", "l1", 5.0),
)


class Doubled(nn.Module):
    """A network in double precision whose inputs and logits are float32."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module.double()

    def forward(self, images: Tensor) -> Tensor:
        """Logits float32 [N, classes] of images float32."""
        logits: Tensor = self.module(images.double())
        return logits.float()


def ours(attack: str, case: Case, data: Fixture) -> Tensor:
    """Which images are classified correctly and withstand our attack, bool [N]."""
    ball: dict[str, Any] = {"epsilon": case.epsilon, "norm": case.norm}
    made: Attack = {
        "apgd-ce": APGDCE(steps=STEPS, **ball),
        "apgd-t": APGDT(steps=STEPS, targets=TARGETS[case.norm], **ball),
        "fab-t": FABT(steps=STEPS, targets=TARGETS[case.norm], **ball),
    }[attack]
    result = made.attack(TorchTarget(data.model), data.images, data.labels, seed=SEED)
    return result.attacked & ~result.success


def theirs(attack: str, case: Case, data: Fixture) -> Tensor:
    """The same by their code, each batch with the seed that ours has."""
    common: dict[str, Any] = {"norm": NAMES[case.norm], "eps": case.epsilon, "n_iter": STEPS, "device": "cpu"}
    targets, stages = TARGETS[case.norm], {"use_largereps": case.norm == "l1"}
    withstood = []
    for number, start in enumerate(range(0, len(data.labels), BATCH_SIZE)):
        rows = slice(start, start + BATCH_SIZE)
        common["seed"] = derive_seed(SEED, "attack", number)
        if attack == "fab-t":
            fab = importlib.import_module("autoattack.fab_pt")
            made = fab.FABAttack_PT(data.model, targeted=True, n_target_classes=targets, **common)
        else:
            apgd = importlib.import_module("autoattack.autopgd_base")
            made = (
                apgd.APGDAttack(data.model, loss="ce", **common, **stages)
                if attack == "apgd-ce"
                else apgd.APGDAttack_targeted(data.model, n_target_classes=targets, **common, **stages)
            )
        adversarial = made.perturb(data.images[rows], data.labels[rows])
        with torch.no_grad():
            withstood.append(data.model(adversarial).argmax(1) == data.labels[rows])
    return torch.cat(withstood)


def compare(attack: str, case: Case, data: Fixture) -> dict[str, Any]:
    """One row of the results."""
    left = {name: side(attack, case, data) for name, side in (("muquant", ours), ("autoattack", theirs))}
    row = {
        **asdict(case),
        "attack": attack,
        "left": {name: int(mask.sum()) for name, mask in left.items()},
        "only_muquant_fools": int((left["autoattack"] & ~left["muquant"]).sum()),
        "only_autoattack_fools": int((left["muquant"] & ~left["autoattack"]).sum()),
    }
    print(json.dumps(row), flush=True)
    return row


def standard_ours(data: Fixture) -> dict[str, float]:
    """The processor seconds of our suite's four attacks, and the images that they leave."""
    sample = Sample(data.images, data.labels, 10)
    suite = [each for each in SUITES["autoattack"](MNIST, None) if each.name in STANDARD_VERSION]
    target = TorchTarget(data.model)
    runner = Runner("net", target, "", sample, SEED, Store(None), Processes(), lambda *_: None)
    begin = time.process_time()
    outcomes = run_suite(runner, suite)
    return {
        "seconds": time.process_time() - begin,
        **{name: int(outcome.withstood.sum()) for name, outcome in outcomes.items()},
    }


def standard_theirs(data: Fixture) -> dict[str, float]:
    """The same of theirs, whose one call states no images after each attack."""
    library = importlib.import_module("autoattack")
    made = library.AutoAttack(
        data.model, norm="Linf", eps=MNIST.epsilon, seed=SEED, device="cpu", verbose=False
    )
    begin = time.process_time()
    adversarial = made.run_standard_evaluation(data.images, data.labels, bs=BATCH_SIZE)
    seconds = time.process_time() - begin
    with torch.no_grad():
        return {"seconds": seconds, "square": int((data.model(adversarial).argmax(1) == data.labels).sum())}


def main() -> int:
    """Measure, print, write; the exit status is 1 where only their code fools more than is allowed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nets", type=Path, default=FOLDER, help="folder of the trained networks")
    parser.add_argument("--images", type=int, default=100, help="attacked in double precision")
    parser.add_argument("--standard", type=int, default=200, help="images of the standard version")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for case in CASES:
        plain = fixture(case.net, options.nets, options.images)
        doubled: Any = Doubled(plain.model).eval()
        data = Fixture(doubled, plain.images, plain.labels)
        rows += [compare(attack, case, data) for attack in STANDARD_VERSION[:-1]]
    robust = fixture("robust", options.nets, options.standard)
    standard = {"muquant": standard_ours(robust), "autoattack": standard_theirs(robust)}
    print(f"AA standard on {options.standard} images: {standard}")
    only = {key: sum(row[key] for row in rows) for key in ("only_muquant_fools", "only_autoattack_fools")}
    document = {
        "count": options.images,
        "steps": STEPS,
        "targets": TARGETS,
        "batch_size": BATCH_SIZE,
        "rows": rows,
        **only,
        "allowed_share": ALLOWED,
        "standard": {
            "net": "robust",
            "epsilon": MNIST.epsilon,
            "count": options.standard,
            "threads": 1,
            **standard,
        },
    }
    print(f"wrote {write_results('autoattack', SEED, document)}")
    return int(only["only_autoattack_fools"] > ALLOWED * options.images * len(rows))


if __name__ == "__main__":
    sys.exit(main())
