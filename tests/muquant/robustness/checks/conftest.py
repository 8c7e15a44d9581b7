"""Hand-made evidence, in which every attack's outcome is given, and evidence of small nets on digits."""

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import cast

import pytest
import torch
from torch import Tensor, nn

import muquant.robustness.evidence as evidence_module
from muquant.attacks import Attack, AttackResult, Norm, TorchTarget
from muquant.base.processes import Processes
from muquant.data import Dataset, load_dataset
from muquant.models import build_model
from muquant.robustness.evidence import AttackOutcome, Evidence, Finding
from muquant.robustness.runner import Runner, Sample
from muquant.robustness.settings import Settings
from muquant.robustness.store import Store
from muquant.robustness.suites import SuiteAttack
from muquant.robustness.sweep import pgd

Examine = Callable[[Evidence], Finding | None]


def result(
    withstood: Tensor, attacked: Tensor | None = None, l2: float = 1.0, linf: float = 0.1
) -> AttackResult:
    """What an attack that left `withstood` would have answered; all its examples are at one distance."""
    attacked = torch.ones_like(withstood) if attacked is None else attacked
    success = attacked & ~withstood
    count = len(withstood)
    return AttackResult(
        torch.zeros(count, 1, 1, 1),
        attacked,
        success,
        torch.ones(count, dtype=torch.int64),
        l2 * success,
        linf * success,
        l2 * success,
        0.0,
    )


@dataclass
class Case:
    """Evidence on images of ten classes in turn; an attack whose outcome was not given raises KeyError."""

    count: int
    epsilon: float = 0.3
    norm: Norm = "linf"
    outcomes: dict[str, AttackOutcome] = field(default_factory=dict)

    def __post_init__(self) -> None:
        labels = torch.arange(self.count) % 10
        sample = Sample(torch.full((self.count, 1, 2, 2), 0.5), labels, 10)
        settings = Settings(epsilon=self.epsilon, norm=self.norm)
        self.runner = Prepared()
        self.evidence = Evidence(nn.Identity(), settings, sample, self.outcomes, cast(Runner, self.runner))

    def left(self, count: int, total: int | None = None) -> Tensor:
        """bool: the first `count` images."""
        return torch.arange(self.count if total is None else total) < count

    def pgd(self, ce: int, margin: int, epsilon: float | None = None) -> None:
        """PGD leaves the first so many images, at the headline epsilon or another."""
        epsilon = self.epsilon if epsilon is None else epsilon
        for loss, count in (("ce", ce), ("margin", margin)):
            self.probe(pgd(self.evidence, epsilon, loss), count)

    def probe(self, attack: Attack, count: int) -> None:
        """An attack leaves the first so many of the probed images."""
        self.runner.results[attack] = result(self.left(count))

    def outcome(
        self,
        name: str,
        attack: Attack,
        withstood: Tensor,
        linf: float = 0.1,
        *,
        attacked: Tensor | None = None,
        after: tuple[str, ...] = (),
    ) -> None:
        """An attack of the suite leaves these."""
        self.outcomes[name] = AttackOutcome(
            SuiteAttack(name, attack, len(withstood), after=after), result(withstood, attacked, linf=linf)
        )


class Prepared:
    """A runner that knows the results of some attacks."""

    def __init__(self) -> None:
        self.seed = 0
        self.results: dict[Attack, AttackResult] = {}

    def run(self, name: str, attack: Attack, limit: int | None = None) -> AttackResult:
        return self.results[attack]


@pytest.fixture
def case(monkeypatch: pytest.MonkeyPatch) -> type[Case]:
    """Makes hand-made evidence whose images are all probed."""
    monkeypatch.setattr(evidence_module, "PROBED", 1_000_000)
    return Case


@pytest.fixture(scope="session")
def found() -> Callable[[Examine, Evidence], Finding]:
    """Runs a check that must apply."""

    def run(examine: Examine, evidence: Evidence) -> Finding:
        finding = examine(evidence)
        assert finding is not None
        return finding

    return run


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """The training split: thresholds and nets have nothing to do with test images."""
    return load_dataset("digits", "train")


@pytest.fixture(scope="session")
def net(digits: Dataset) -> Callable[[str, int], nn.Module]:
    """Trains an "ordinary" or a "robust" net with a seed, or gives the one that has been trained."""
    return cache(lambda kind, seed: train(digits, seed, {"ordinary": 0.0, "robust": 0.2}[kind]))


def train(dataset: Dataset, seed: int, epsilon: float) -> nn.Module:
    """A small net on digits; with epsilon above 0 on images that one gradient step has perturbed."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = build_model("cnn4-small", dataset.input_shape, 10, dataset.mean, dataset.std)
        optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 5e-3, total_steps=STEPS)
        for number in range(STEPS):
            rows = torch.randint(len(dataset), (64,))
            images, labels = dataset.inputs(rows), dataset.labels[rows]
            if epsilon:
                images = perturbed(model, images, labels, epsilon * min(1.0, 2 * number / STEPS))
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(model(images), labels))
            optimizer.step()
            schedule.step()
    return model.eval()


STEPS = 200


def perturbed(model: nn.Module, images: Tensor, labels: Tensor, epsilon: float) -> Tensor:
    """One long step from a random start (Wong et al. 2020)."""
    start = ((2 * torch.rand_like(images) - 1) * epsilon).requires_grad_()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(model(images + start), labels), start)
    offset = (start.detach() + 1.25 * epsilon * gradient.sign()).clamp(-epsilon, epsilon)
    return (images + offset).clamp(0, 1)


@pytest.fixture(scope="session")
def evidence_of(digits: Dataset) -> Callable[..., Evidence]:
    """Evidence of a module on the first 100 digits, without a suite."""

    def make(module: nn.Module, *, epsilon: float = 0.15, norm: Norm = "linf", count: int = 100) -> Evidence:
        sample = Sample(digits.inputs(slice(count)), digits.labels[:count], len(digits.classes))
        runner = Runner("net", TorchTarget(module), "", sample, 0, Store(None), Processes(), lambda *_: None)
        return Evidence(module, Settings(epsilon=epsilon, norm=norm), sample, {}, runner)

    return make
