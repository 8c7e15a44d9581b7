"""APGD-CE, APGD-T and FAB-T against AutoAttack's own code (Croce, Hein 2020), image by image.

    pip install git+https://github.com/fra31/auto-attack
    MUQUANT_DATA=... python benchmarks/auto_attack.py

Trains two small networks on MNIST where the folder has none (five minutes). Then both sides attack the same
images in the same batches from the same random numbers, and those on which they disagree are counted. There
networks compute in double precision, so that the rounding of kernels, which depends on how many images are
left in a batch, does not decide; images, losses and steps are float32. Square draws windows for each image
here and for a whole batch there, so that it can only be compared by what is left: `auto_attack_speed.py` runs
the whole standard version on each side. Writes `results/autoattack.json`.
"""

import argparse
import importlib
import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from attack_nets import FOLDER, SEED, Fixture, fixture
from provenance import write_results
from torch import Tensor, nn

from muquant.attacks import APGDCE, APGDT, FABT, Attack, Norm, TorchTarget
from muquant.attacks.base import BATCH_SIZE
from muquant.base.seeds import derive_seed
from muquant.robustness.suites import STANDARD_VERSION

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


def main() -> int:
    """Measure, print, write; the exit status is 1 where only their code fools more than is allowed."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--nets", type=Path, default=FOLDER, help="folder of the trained networks")
    parser.add_argument("--images", type=int, default=100, help="attacked in double precision")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for case in CASES:
        plain = fixture(case.net, options.nets, options.images)
        doubled: Any = Doubled(plain.model).eval()
        data = Fixture(doubled, plain.images, plain.labels)
        rows += [compare(attack, case, data) for attack in STANDARD_VERSION[:-1]]
    only = {key: sum(row[key] for row in rows) for key in ("only_muquant_fools", "only_autoattack_fools")}
    document = {
        "count": options.images,
        "steps": STEPS,
        "targets": TARGETS,
        "batch_size": BATCH_SIZE,
        "rows": rows,
        **only,
        "allowed_share": ALLOWED,
    }
    print(f"wrote {write_results('autoattack', SEED, document)}")
    return int(only["only_autoattack_fools"] > ALLOWED * options.images * len(rows))


if __name__ == "__main__":
    sys.exit(main())
