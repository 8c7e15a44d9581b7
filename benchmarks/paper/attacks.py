"""The columns of the tables: which attacks, on how many images, and what is kept of each."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from muquant.attacks import TorchTarget, Transfer
from muquant.base.processes import Processes
from muquant.data import Dataset
from muquant.models.evaluation import evaluate
from muquant.models.fingerprint import fingerprint
from muquant.robustness import BenchmarkSetup, Settings, Subject, SuiteAttack
from muquant.robustness.assessment import Entry, assess_torch
from muquant.robustness.evidence import AttackOutcome
from muquant.robustness.runner import OnBatch, Runner, Sample, describe, replay
from muquant.robustness.store import Store
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
"""The source's column -> attack of suite `seed`."""

BEYOND = {
    "PGD, margin": "pgd-margin",
    "APGD-CE": "apgd-ce",
    "APGD-T": "apgd-t",
    "Square": "square",
    "DDN": "ddn",
}
"""Our column -> attack of the suites `seed` and `headline`."""

WITH_EPSILON = ("FGSM (w)", "FGSM (s)", "PGD", "BIM", "MIM")
"""The white-box columns whose epsilon is stated."""

ITERATIVE = ("pgd", "pgd-margin", "bim", "mim", "ddn", "apgd-ce", "apgd-t", "square", "transfer")
"""Attacks on a draw of the test images; those of suite `seed` that are not named run on all of them."""

CARLINI_WAGNER = ("cw", "transfer-cw")
"""Attacks on the first few of these. They are slow, so they stand apart: a row may have been measured without
them, and gets them later. The worst case is never theirs."""


@dataclass(frozen=True)
class Counts:
    """How many test images an attack sees.

    Attributes:
        iterative: drawn from the test split.
        cw: of these, the first so many for Carlini and Wagner's attack; 0 leaves it out.
        whole: of the test split, for attacks of one step and noise; None for all. Clean images are always
            all of it.
    """

    iterative: int = 1000
    cw: int = 200
    whole: int | None = None


@dataclass(frozen=True, eq=False)
class Bench:
    """Attacks the rows of one table alike.

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

    def measure(self, subject: Subject, known: dict[str, Any] | None = None) -> dict[str, Any]:
        """Everything about one row, as JSON values.

        Args:
            subject: the network.
            known: what an earlier call has returned for the row, if there is one. It is taken where it is of
                the same network and of the same attacks on as many images.
        """
        assert subject.module is not None
        target, digest = TorchTarget(subject.module), fingerprint(subject.module)
        row = known
        if row is None or row["digest"] != digest or not self.holds(row):
            row = {"digest": digest, **self._attack(subject, target, digest)}
        missing = [each for each in self._carlini_wagner() if not self._has(row, each.name)]
        for each in missing:
            report = asdict(report_attack(self._entry(each, target, digest, subject.name)))
            row = {**row, "attacks": {**row["attacks"], each.name: report}}
        found: dict[str, Any] = json.loads(json.dumps(row))  # as it will be read
        return found

    def holds(self, row: dict[str, Any]) -> bool:
        """Whether a row is of these attacks, with all their parameters and this surrogate, on as many images.

        Carlini and Wagner's, which are added to a row, do not count.
        """
        clean = row["attacks"].get(CLEAN, {}).get("count") == len(self.dataset)
        return clean and all(self._has(row, name) for name in self._asked if name not in CARLINI_WAGNER)

    def _has(self, row: dict[str, Any], name: str) -> bool:
        found = row["attacks"].get(name)
        return found is not None and (found["count"], found["parameters"]) == self._asked[name]

    @cached_property
    def _asked(self) -> dict[str, tuple[int, Any]]:
        """Name of an attack -> on how many images, and with which parameters, as a results file has them."""
        groups = (
            (len(self.drawn), self.iterative()),
            (len(self.whole), self.single()),
            (self.counts.cw, self._carlini_wagner()),
        )
        return {
            each.name: (count, json.loads(json.dumps(describe(each.attack))))
            for count, suite in groups
            for each in suite
        }

    def _attack(self, subject: Subject, target: TorchTarget, digest: str) -> dict[str, Any]:
        runner = self._runner(subject.name, target, digest, self.drawn, Store(self.folder))
        assessment = assess_torch(target.module, runner, self.iterative(), self.settings)
        report = asdict(summarize(subject, assessment, self.drawn))
        attacks = report.pop("attacks")
        del report["curves"]
        # quickly made again, and too large to keep
        everything = self._runner(subject.name, target, digest, self.whole, Store(None))
        for each in self.single():
            result = everything.run(each.name, each.attack)
            attacks[each.name] = asdict(report_attack(Entry(each, AttackOutcome(each, result))))
        attacks[CLEAN] = {"accuracy": evaluate(target.module, self.dataset), "count": len(self.dataset)}
        report["flags"] = [check["check"] for check in report["checks"] if check["fired"]]
        return {**report, "attacks": attacks}

    def iterative(self) -> list[SuiteAttack]:
        """Suite `headline` and what suite `seed` has besides, on all images, without what `single` has."""
        suite = {**self._suite("headline"), **self._suite("seed")}
        return [replace(suite[name], after=()) for name in ITERATIVE]

    def single(self) -> Iterator[SuiteAttack]:
        """What costs little: one step, noise, and the same on the surrogate."""
        for name, each in self._suite("seed").items():
            if name not in (*ITERATIVE, *CARLINI_WAGNER):
                yield each

    def _suite(self, name: str) -> dict[str, SuiteAttack]:
        return {each.name: each for each in SUITES[name](self.settings, self.surrogate)}

    def _carlini_wagner(self) -> list[SuiteAttack]:
        return [self._suite("seed")[name] for name in CARLINI_WAGNER] if self.counts.cw else []

    def _entry(self, suite_attack: SuiteAttack, target: TorchTarget, digest: str, name: str) -> Entry:
        """Runs Carlini and Wagner's attack on a network, or shows it what was made on the surrogate."""
        store, count = Store(self.folder), self.counts.cw
        if not isinstance(suite_attack.attack, Transfer):
            result = self._runner(name, target, digest, self.drawn, store).run(
                "cw", suite_attack.attack, count
            )
            return Entry(suite_attack, AttackOutcome(suite_attack, result))
        other = fingerprint(self.surrogate.module)
        made = self._runner("surrogate", self.surrogate, other, self.drawn, store).run(
            "cw", suite_attack.attack.method, count
        )
        return Entry(suite_attack, AttackOutcome(suite_attack, replay(target, made, self.drawn.first(count))))

    @cached_property
    def drawn(self) -> Sample:
        """The images of iterative attacks."""
        return self._sample(self.counts.iterative)

    @cached_property
    def whole(self) -> Sample:
        """The images of all others."""
        return self._sample(self.counts.whole)

    def _sample(self, count: int | None) -> Sample:
        setup = BenchmarkSetup("seed", self.settings, limit=count, seed=self.seed)
        return Sample.of(self.dataset, setup.draw(self.dataset))

    def _runner(self, name: str, target: TorchTarget, digest: str, sample: Sample, store: Store) -> Runner:
        return Runner(name, target, digest, sample, self.seed, store, self.processes, self.on_batch)
