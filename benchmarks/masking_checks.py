"""Which masking checks fire on honest networks, and which on networks with a planted fault.

    MUQUANT_DATA=... python benchmarks/masking_checks.py [--seeds 3]

Trains cnn4-small on MNIST, ordinary and adversarially, with several seeds, where the run folders are empty.
Each is tried as it is and at 3 bits, which are the honest forms; those of seed 0 also with each fault. The
standard suite and all checks run on 200 images of the held-out part of the training split: thresholds may be
set by what comes out, test images are never looked at. Writes `results/masking_checks.json`.
"""

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from attack_nets import FOLDER, KINDS, config, network
from provenance import write_results
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

import muquant
from muquant.attacks import PGD, TorchTarget
from muquant.base.processes import Processes
from muquant.base.seeds import generator_for
from muquant.compression.layers import quantizable_weights
from muquant.models.fingerprint import fingerprint
from muquant.robustness.checks import CHECKS
from muquant.robustness.checks.gradients import TemperedPGD
from muquant.robustness.evidence import PROBED, AttackOutcome, Evidence, Finding
from muquant.robustness.runner import Runner, Sample
from muquant.robustness.settings import settings_for
from muquant.robustness.store import Store
from muquant.robustness.suites import standard
from muquant.training import TrainingConfig
from muquant.training.run.data import load_run_data

SETTINGS = settings_for("mnist")
GAPS = (1, 2, 4, 8, 16, 32, 64, 128)
"""Median gaps of the two largest logits that PGD on the cross-entropy is tried at."""

HALFWAY = {"ordinary": 0.1, "robust": 0.25}
"""Epsilons at which about half of the images withstand PGD, where a difference shows best."""


class Changed(nn.Module):
    """A module whose inputs or outputs are changed.

    Args:
        module: what is changed.
        before: applied to its inputs.
        after: applied to its outputs.
    """

    def __init__(
        self,
        module: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> None:
        super().__init__()
        self.module, self.before, self.after = module, before, after

    def forward(self, inputs: Tensor) -> Tensor:
        """What comes out."""
        return self.after(self.module(self.before(inputs)))


def three_bits(model: nn.Module) -> nn.Module:
    """All weights at 3 bits."""
    return muquant.compress(model, flat=True).module


def mapped(layers: str) -> Callable[[nn.Module], nn.Module]:
    """Some layers in the mapped domain: weights stay as the mu-law has compressed them.

    At 8 bits, so that the rounding is not the topic.
    """
    spec = muquant.MuLawSpec(bits=8, mu=255, domain="mapped")
    return lambda model: muquant.compress(model, spec, layers=layers, flat=True).module


def large_logits(model: nn.Module) -> nn.Module:
    """Logits times 1,000."""
    return Changed(model, after=lambda logits: 1000 * logits)


def probabilities(model: nn.Module) -> nn.Module:
    """A softmax at the end."""
    return Changed(model, after=lambda logits: logits.softmax(1))


def noise(model: nn.Module) -> nn.Module:
    """Normal noise on the images, new at every call."""
    return Changed(model, before=lambda images: images + 0.1 * torch.randn_like(images))


def rounded_activations(model: nn.Module) -> nn.Module:
    """What the second layer is given is rounded to quarters, which has no gradient."""
    model = copy.deepcopy(model)
    layer = quantizable_weights(model)[1].module
    layer.register_forward_pre_hook(lambda _, arguments: ((4 * arguments[0]).round() / 4,))
    return model


FORMS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "float": lambda model: model,
    "3 bits": three_bits,
    "mapped, last 2 layers": mapped("last:2"),
    "mapped, last 3 layers": mapped("last:3"),
    "logits x 1000": large_logits,
    "softmax": probabilities,
    "noise": noise,
    "rounded activations": rounded_activations,
}
HONEST = ("float", "3 bits")


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=Path, default=FOLDER, help="folder of the runs")
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    console = Console()
    rows, gaps = [], []
    for seed in range(options.seeds):
        models = {kind: network(kind, seed, options.runs) for kind in KINDS}
        sample = held_out(config("ordinary", seed))
        for kind, model in models.items():
            surrogate = TorchTarget(next(other for name, other in models.items() if name != kind))
            gaps.append({"net": kind, "seed": seed, **accuracy_by_gap(model, sample, HALFWAY[kind])})
            for form, change in FORMS.items():
                if seed and form not in HONEST:
                    continue
                torch.manual_seed(seed)  # of the noise
                found = examine(change(model), sample, surrogate, f"{kind}-{seed} {form}", options.runs)
                rows.append({"net": kind, "seed": seed, "form": form, "honest": form in HONEST, **found})
                console.print(f"{kind} {seed} {form}: {', '.join(fired(rows[-1])) or 'nothing fires'}")
    console.print(matrix(rows))
    document = {
        "count": PROBED,
        "epsilon": SETTINGS.epsilon,
        "kinds": {check.name: check.kind for check in CHECKS.values()},
        "nets": rows,
        "accuracy_under_pgd_by_median_gap_of_logits": gaps,
    }
    console.print(write_results("masking_checks", 0, document))


def held_out(config: TrainingConfig) -> Sample:
    """Random images of the part of the training split that a run held out."""
    data = load_run_data(config).validation
    assert data is not None
    rows = torch.randperm(len(data), generator=generator_for(config.seed, "sample"))[:PROBED]
    return Sample.of(data, rows)


def examine(
    module: nn.Module, sample: Sample, surrogate: TorchTarget, name: str, folder: Path
) -> dict[str, Any]:
    """Run the standard suite and all checks; attacks that ran before are taken from the folder."""
    module.eval()
    digest = f"{name} {fingerprint(module)}"  # two wrappers may print alike
    target, store = TorchTarget(module), Store(folder / "attacks")
    runner = Runner(name, target, digest, sample, 0, store, Processes(), lambda *_: None)
    outcomes = {
        each.name: AttackOutcome(each, runner.run(each.name, each.attack, each.limit))
        for each in standard(SETTINGS, surrogate)
    }
    evidence = Evidence(module, SETTINGS, sample, outcomes, runner)
    findings: dict[str, Finding | None] = {}
    start = time.process_time()
    for check in CHECKS.values():
        findings[check.name] = check.examine(evidence)
    seconds = time.process_time() - start
    return {
        "clean": float(next(iter(outcomes.values())).result.attacked.double().mean()),
        "accuracy": {name: float(outcome.withstood.double().mean()) for name, outcome in outcomes.items()},
        "processor_seconds_of_checks": seconds,
        "checks": {
            name: finding and {**asdict(finding), "fired": finding.fired}
            for name, finding in findings.items()
        },
    }


def accuracy_by_gap(model: nn.Module, sample: Sample, epsilon: float) -> dict[str, Any]:
    """What PGD on the cross-entropy leaves where logits are rescaled to other median gaps."""
    with torch.no_grad():
        first, second = model(sample.images).topk(2, dim=1).values.T
    usual, target = float((first - second).median()), TorchTarget(model)
    accuracies = {
        gap: TemperedPGD.of(PGD(epsilon=epsilon), usual / gap)
        .attack(target, sample.images, sample.labels)
        .accuracy
        for gap in GAPS
    }
    margin = PGD(epsilon=epsilon, loss="margin").attack(target, sample.images, sample.labels)
    return {"epsilon": epsilon, "gap": usual, "by_gap": accuracies, "margin": margin.accuracy}


def fired(row: dict[str, Any]) -> list[str]:
    """The checks that fired on a network."""
    return [name for name, finding in row["checks"].items() if finding and finding["fired"]]


def matrix(rows: list[dict[str, Any]]) -> Table:
    """On how many of the networks of each kind and form each check fires."""
    columns = list(dict.fromkeys((row["net"], row["form"]) for row in rows))
    table = Table("check", "kind", *(f"{net}, {form}" for net, form in columns))
    for check in CHECKS.values():
        cells = []
        for column in columns:
            members = [row for row in rows if (row["net"], row["form"]) == column]
            cells.append(f"{sum(check.name in fired(row) for row in members)} of {len(members)}")
        table.add_row(check.name, check.kind, *cells)
    return table


if __name__ == "__main__":
    main()
