"""The columns of the tables: which attacks, on how many images, and what is kept of each."""

import hashlib
import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import nn

from muquant.attacks import TorchTarget, Transfer
from muquant.data import Dataset
from muquant.evaluation import evaluate
from muquant.files import make_folder, read_json, write_json
from muquant.robustness import Plan, Processes, Settings, Subject, Trial
from muquant.robustness.assessment import Entry, assess_torch
from muquant.robustness.evidence import Outcome
from muquant.robustness.runner import OnBatch, Runner, Sample, describe, replay
from muquant.robustness.store import Store
from muquant.robustness.subject import fingerprint
from muquant.robustness.suites import SUITES
from muquant.robustness.summary import report_attack, summarize

CLEAN = "clean"
WHITE_BOX = {
    "Clean": CLEAN,
    "CW-L2": "cw",
    "FGSM (w)": "fgsm-weak",
    "FGSM (s)": "fgsm-strong",
    "PGD": "pgd",
    "BIM": "bim",
    "MIM": "mim",
}
BLACK_BOX = {
    "CW-L2": "transfer-cw",
    "FGSM (w)": "transfer-fgsm-weak",
    "FGSM (m)": "transfer-fgsm-medium",
    "FGSM (s)": "transfer-fgsm-strong",
    "Normal": "normal-noise",
    "Uniform": "uniform-noise",
}
"""The source's column -> trial of suite `seed`."""

BEYOND = {
    "PGD, margin": "pgd-margin",
    "APGD-CE": "apgd-ce",
    "APGD-T": "apgd-t",
    "Square": "square",
    "DDN": "ddn",
}
"""Our column -> trial of the suites `seed` and `headline`."""

WITH_EPSILON = ("FGSM (w)", "FGSM (s)", "PGD", "BIM", "MIM")
"""The white-box columns whose epsilon is stated."""

ITERATIVE = ("pgd", "pgd-margin", "bim", "mim", "ddn", "apgd-ce", "apgd-t", "square", "transfer", "cw")
"""Trials on a draw of the test images; those of suite `seed` that are not named run on all of them."""


@dataclass(frozen=True)
class Counts:
    """How many test images an attack sees.

    Attributes:
        iterative: drawn from the test split.
        cw: of these, the first so many; 0 leaves the attack out.
        whole: of the test split, for attacks of one step and noise; None for all. Clean images are always
            all of it.
    """

    iterative: int = 1000
    cw: int = 200
    whole: int | None = None


@dataclass(frozen=True, eq=False)
class Bench:
    """Attacks the rows of one table alike; what was finished before is taken from the folder.

    Attributes:
        settings: epsilons, steps and all other numbers.
        dataset: the test split.
        surrogate: an independently trained network, on which the black-box examples are made.
        counts: of images.
        seed: of the draw and of all attacks.
        folder: where finished attacks are kept.
        processes: that share the work.
        on_batch: called after each batch.
    """

    settings: Settings
    dataset: Dataset
    surrogate: TorchTarget
    counts: Counts
    seed: int
    folder: Path
    processes: Processes
    on_batch: OnBatch

    def measure(self, subject: Subject) -> dict[str, Any]:
        """Everything about one row, as JSON values; a finished row is read, not measured."""
        assert subject.module is not None
        digest = fingerprint(subject.module)
        path, first = self._path(digest), self.processes.rank == 0
        found = self.processes.share(read_json(path) if first and path.exists() else None)
        if found is None:
            measured = {"digest": digest, **self._attack(subject, subject.module, digest)}
            found = json.loads(json.dumps(measured))  # as it will be read
            if first:
                make_folder(path.parent)
                write_json(path, found)
        row: dict[str, Any] = {**found, "name": subject.name}
        return row

    def _attack(self, subject: Subject, module: nn.Module, digest: str) -> dict[str, Any]:
        target = TorchTarget(module)
        runner = self._runner(subject.name, target, digest, self.drawn, Store(self.folder))
        assessment = assess_torch(module, runner, self.iterative(), self.settings)
        report = asdict(summarize(subject, assessment, self.drawn))
        attacks = report.pop("attacks")
        del report["curves"]
        # quickly made again, and too large to keep
        everything = self._runner(subject.name, target, digest, self.whole, Store(None))
        for trial in self.single():
            result = everything.run(trial.name, trial.attack)
            attacks[trial.name] = asdict(report_attack(Entry(trial, Outcome(trial, result))))
        attacks[CLEAN] = {"accuracy": evaluate(module, self.dataset), "count": len(self.dataset)}
        if self.counts.cw:
            attacks["transfer-cw"] = self._transfer_cw(target)
        report["flags"] = [check["check"] for check in report["checks"] if check["fired"]]
        return {**report, "attacks": attacks}

    def _path(self, digest: str) -> Path:
        """Where the row of a network is kept: any other attack, image or surrogate is another file."""
        trials = [*self.iterative(), *self.single()]
        key = {
            "network": digest,
            "trials": [(trial.name, trial.limit, trial.bound, describe(trial.attack)) for trial in trials],
            "counts": asdict(self.counts),
            "settings": asdict(self.settings),
            "images": self.whole.digest,
            "seed": self.seed,
        }
        return self.folder / f"row-{hashlib.sha256(json.dumps(key).encode()).hexdigest()[:16]}.json"

    def iterative(self) -> list[Trial]:
        """Suite `headline` and what suite `seed` has besides, without what `single` has."""
        trials = {**self._suite("headline"), **self._suite("seed")}
        trials["cw"] = replace(trials["cw"], limit=self.counts.cw)
        return [trials[name] for name in ITERATIVE if name != "cw" or self.counts.cw]

    def single(self) -> Iterator[Trial]:
        """What costs little: one step, noise, and the same on the surrogate."""
        for name, trial in self._suite("seed").items():
            if name not in (*ITERATIVE, "transfer-cw"):
                yield trial

    def _suite(self, name: str) -> dict[str, Trial]:
        return {trial.name: trial for trial in SUITES[name](self.settings, self.surrogate)}

    def _transfer_cw(self, target: TorchTarget) -> dict[str, Any]:
        """Shows what Carlini and Wagner's attack made on the surrogate, once for all rows."""
        trial, digest = self._suite("seed")["transfer-cw"], fingerprint(self.surrogate.module)
        assert isinstance(trial.attack, Transfer)
        runner = self._runner("surrogate", self.surrogate, digest, self.drawn, Store(self.folder))
        made = runner.run("cw", trial.attack.method, self.counts.cw)
        shown = replay(target, made, self.drawn.first(self.counts.cw))
        return asdict(report_attack(Entry(trial, Outcome(trial, shown))))

    @cached_property
    def drawn(self) -> Sample:
        """The images of iterative attacks."""
        return self._sample(self.counts.iterative)

    @cached_property
    def whole(self) -> Sample:
        """The images of all others."""
        return self._sample(self.counts.whole)

    def _sample(self, count: int | None) -> Sample:
        plan = Plan("seed", self.settings, limit=count, seed=self.seed)
        return Sample.of(self.dataset, plan.draw(self.dataset))

    def _runner(self, name: str, target: TorchTarget, digest: str, sample: Sample, store: Store) -> Runner:
        return Runner(name, target, digest, sample, self.seed, store, self.processes, self.on_batch)
