"""What a suite finds on one model: by attacks and checks in PyTorch, by replay and queries elsewhere."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from muquant.attacks import AttackResult, Target, Threat
from muquant.attacks.target import abstains
from muquant.robustness.checks import CHECKS
from muquant.robustness.evidence import AttackOutcome, Check, Evidence, Finding, fooled_within
from muquant.robustness.runner import Runner, Sample, predictions, replay
from muquant.robustness.settings import Settings
from muquant.robustness.suites import SuiteAttack


@dataclass(frozen=True, eq=False)
class Entry:
    """An attack of the suite on one model.

    Attributes:
        outcome: None where the attack needs gradients that are not to be had.
        agreement: of a replay, the fraction of adversarial images that both models give the same class; None
            where there is none, or this is no replay.
        replayed: whether the examples were made on the PyTorch model.
    """

    suite_attack: SuiteAttack
    outcome: AttackOutcome | None
    agreement: float | None = None
    replayed: bool = False


@dataclass(frozen=True, eq=False)
class Assessment:
    """What was found on one model under one runtime.

    Attributes:
        predicted: int64 [N], the classes of the clean images.
        entries: one for each attack of the suite, in their order.
        worst: for each image the first example inside the headline threat that fooled the model.
        findings: of the checks that applied.
        evidence: what the checks looked at; None where there were none: under another runtime than PyTorch,
            and where attacks aimed at classes, which no check knows how to judge.
        seconds: wall time.
        threat: the headline's.
    """

    predicted: Tensor
    entries: Sequence[Entry]
    worst: AttackResult
    findings: Sequence[tuple[Check, Finding]]
    evidence: Evidence | None
    seconds: float
    threat: Threat


def assess_torch(
    module: torch.nn.Module, runner: Runner, suite: Sequence[SuiteAttack], settings: Settings
) -> Assessment:
    """Run every attack and every check on a PyTorch model; no check where attacks aim at classes.

    The worst case counts whatever any attack found, also those that the checks ran.
    """
    begin = time.perf_counter()
    sample = runner.sample
    with runner.target.ready(), torch.no_grad():
        predicted = predictions(runner.target, sample.images)
    outcomes = run_suite(runner, suite)
    evidence, findings = None, []
    if sample.target_classes is None:
        evidence = Evidence(module, settings, sample, outcomes, runner, abstains(runner.target))
        for check in CHECKS.values():
            finding = check.examine(evidence)
            if finding is not None:
                findings.append((check, finding))
    entries = [Entry(each, outcomes[each.name]) for each in suite]
    worst = worst_case(runner.found(), predicted, sample, settings.threat)
    return Assessment(
        predicted, entries, worst, findings, evidence, time.perf_counter() - begin, settings.threat
    )


def run_suite(runner: Runner, suite: Sequence[SuiteAttack]) -> dict[str, AttackOutcome]:
    """Run the attacks of a suite in their order: name -> what came of it."""
    outcomes: dict[str, AttackOutcome] = {}
    for each in suite:
        outcomes[each.name] = _run(runner, each, outcomes)
    return outcomes


def assess_session(
    runner: Runner,
    suite: Sequence[SuiteAttack],
    settings: Settings,
    twin: tuple[Target, Assessment] | None,
) -> Assessment:
    """Show a session what was made on its PyTorch twin, and run on it what needs no gradients.

    Args:
        runner: on the session.
        suite: its attacks, in the order in which they are run.
        settings: of the suite.
        twin: the PyTorch model and what was found on it, if there is one.
    """
    begin = time.perf_counter()
    sample = runner.sample
    predicted = predictions(runner.target, sample.images)
    entries, replays = [], []
    outcomes: dict[str, AttackOutcome] = {}
    made = {} if twin is None else {entry.suite_attack.name: entry.outcome for entry in twin[1].entries}
    for each in suite:
        if not each.attack.needs_gradients:
            outcomes[each.name] = _run(runner, each, outcomes)
            entries.append(Entry(each, outcomes[each.name]))
        elif twin is not None and (original := made[each.name]) is not None:
            result = replay(runner.target, original.result, sample.first(each.limit))
            same = agreement(twin[0], runner.target, original.result)
            replays.append(result)
            left = survivors(each, outcomes)
            if left is not None:
                rows = left.nonzero()[:, 0]
                result = result.at(rows).among(sample.images, rows)
            outcomes[each.name] = AttackOutcome(each, result)
            entries.append(Entry(each, outcomes[each.name], same, replayed=True))
        else:
            entries.append(Entry(each, None))
    if twin is not None:
        replays.append(replay(runner.target, twin[1].worst, sample))
    worst = worst_case([*runner.found(), *replays], predicted, sample, settings.threat)
    return Assessment(predicted, entries, worst, (), None, time.perf_counter() - begin, settings.threat)


def survivors(each: SuiteAttack, outcomes: Mapping[str, AttackOutcome]) -> Tensor | None:
    """bool [N], the images that withstood all that goes before an attack, as far as it could be run.

    None where nothing goes before it.
    """
    before = [outcomes[name].withstood for name in each.after if name in outcomes]
    return torch.stack(before).all(0) if before else None


def _run(runner: Runner, each: SuiteAttack, outcomes: Mapping[str, AttackOutcome]) -> AttackOutcome:
    left = survivors(each, outcomes)
    return AttackOutcome(each, runner.run(each.name, each.attack, each.limit, among=left, seed=each.seed))


def agreement(one: Target, other: Target, made: AttackResult) -> float | None:
    """The fraction of the adversarial images that both targets give the same class; None where none is."""
    images = made.adversarial[made.success]
    if not len(images):
        return None
    with one.ready(), other.ready(), torch.no_grad():
        return float((predictions(one, images) == predictions(other, images)).float().mean())


def worst_case(
    results: Iterable[AttackResult], predicted: Tensor, sample: Sample, threat: Threat
) -> AttackResult:
    """Put together what several attacks found: for each image the first example inside the threat.

    Args:
        results: each of the first so many images of the sample.
        predicted: int64 [N], the classes of the clean images.
        sample: the clean images.
        threat: the ball; its radius is not None.
    """
    adversarial, success = sample.images.clone(), torch.zeros(len(sample), dtype=torch.bool)
    l2, linf, l1 = (torch.zeros(len(sample)) for _ in range(3))
    queries = torch.zeros(len(sample), dtype=torch.int64)
    for result in results:
        count = len(result.success)
        new = fooled_within(result, threat) & ~success[:count]
        adversarial[:count][new] = result.adversarial[new]
        for mine, theirs in ((l2, result.l2), (linf, result.linf), (l1, result.l1)):
            mine[:count][new] = theirs[new]
        success[:count] |= new
        queries[:count] += result.queries
    attacked = predicted == sample.labels
    return AttackResult(adversarial, attacked, success & attacked, queries, l2, linf, l1, 0.0)
