"""Checks that compare attacks: one that knows less, or does less, must not find more."""

from collections.abc import Callable
from dataclasses import replace

from muquant.attacks import FGSM, Attack, RandomSearch, Transfer
from muquant.robustness.checks.measures import LOSS_NAMES, clearest, gap, survivors
from muquant.robustness.evidence import AttackOutcome, Evidence, Finding
from muquant.robustness.sweep import STEPS, headline, pgd, radius, withstood

SINGLE_STEP, BLACK_BOX, TRANSFER, MORE_EFFORT = 0.01, 0.002, 0.002, 0.005
"""Differences of accuracy that count."""

PER_EXAMPLE, RANDOM_SEARCH = 0.01, 0.01
"""Shares of the images that count."""


def step_order(evidence: Evidence) -> Finding | None:
    """Fires where one gradient step leaves over 1 point less accuracy than PGD.

    PGD searches the ball that a single step only crosses. Where it finds less, gradients do not lead to the
    boundary (Athalye et al. 2018, section 3.1; Carlini et al. 2019). Of both, the worst of cross-entropy and
    margin counts.
    """
    iterative = headline(evidence).withstood
    if not evidence.above_chance(iterative):
        return None
    ce, margin = (
        withstood(evidence, FGSM(epsilon=radius(evidence), norm=evidence.threat.norm, loss=loss))
        for loss in ("ce", "margin")
    )
    return gap(iterative, ce & margin, SINGLE_STEP, ("under PGD", "under one gradient step"))


def black_box(evidence: Evidence) -> Finding | None:
    """Fires where a query attack leaves over 0.2 points less accuracy than the best white-box attack.

    Whoever knows the gradients can do all that whoever sees outputs can do (Athalye et al. 2018, section
    3.1). The threshold is that of AutoAttack's flag for Square.
    """
    return _cheaper(evidence, _is_query, BLACK_BOX)


def transfer(evidence: Evidence) -> Finding | None:
    """Fires where examples made on another model leave over 0.2 points less than the best white-box attack.

    They know less than a query attack does (Carlini et al. 2019). Not applied without a surrogate.
    """
    return _cheaper(evidence, _is_transfer, TRANSFER)


def per_example(evidence: Evidence) -> Finding | None:
    """Fires where query attacks fool over 1 % of the images that all white-box attacks together left.

    Equal accuracies can hide that each attack fails on images of its own, so this looks at every image
    (Carlini et al. 2019).
    """
    white, queries = _outcomes(evidence, _is_white_box), _outcomes(evidence, _is_query)
    if not white or not queries:
        return None
    count = max(len(outcome.withstood) for outcome in queries)
    left = survivors(white, evidence.threat, count)
    if not evidence.above_chance(left):
        return None
    both = left & survivors(queries, evidence.threat, count)
    return gap(left, both, PER_EXAMPLE, ("under all white-box attacks", "under query attacks as well"))


def random_search(evidence: Evidence) -> Finding | None:
    """Fires where 100 random points of the ball fool over 1 % of the images that all gradient attacks left.

    A search without any aim is the weakest attack there is (Athalye et al. 2018, section 3.1; Carlini et al.
    2019).
    """
    white = _outcomes(evidence, _is_white_box)
    left = survivors(white, evidence.threat, len(evidence.probed)) & headline(evidence).withstood
    if not evidence.above_chance(left):
        return None
    search = RandomSearch(epsilon=radius(evidence), norm=evidence.threat.norm)
    both = left & withstood(evidence, search)
    return gap(left, both, RANDOM_SEARCH, ("under gradient attacks", "under random search as well"))


def more_effort(evidence: Evidence) -> Finding | None:
    """Fires where twice the steps or twice the restarts of PGD leave over 0.5 points less accuracy.

    A figure that falls with more effort is not the last word (Carlini et al. 2019). Tried with the loss
    under which PGD left less.
    """
    point = headline(evidence)
    if not evidence.above_chance(point.withstood):
        return None
    loss, usual = min((("ce", point.ce), ("margin", point.margin)), key=lambda pair: int(pair[1].sum()))
    attack, name = pgd(evidence, radius(evidence), loss), f"under {STEPS} steps of PGD on {LOSS_NAMES[loss]}"
    efforts = {
        f"under {2 * STEPS}": replace(attack, steps=2 * STEPS),
        "with 2 restarts": replace(attack, restarts=2),
    }
    return clearest(
        gap(usual, withstood(evidence, effort), MORE_EFFORT, (name, words))
        for words, effort in efforts.items()
    )


def _cheaper(evidence: Evidence, kind: Callable[[Attack], bool], least: float) -> Finding | None:
    """How far an attack of a kind beats the best white-box attack on the images that it saw."""
    findings = []
    for cheap in _outcomes(evidence, kind):
        weak = cheap.withstood_within(evidence.threat)
        count = len(weak)
        rivals = [
            (outcome.withstood_within(evidence.threat)[:count], outcome.suite_attack.name)
            for outcome in _outcomes(evidence, _is_white_box)
            if len(outcome.withstood) >= count and cheap.suite_attack.name not in outcome.suite_attack.after
        ]
        if not rivals:
            continue
        strong, name = min(rivals, key=lambda rival: int(rival[0].sum()))
        if evidence.above_chance(strong):
            findings.append(gap(strong, weak, least, (f"under {name}", f"under {cheap.suite_attack.name}")))
    return clearest(findings)


def _outcomes(evidence: Evidence, kind: Callable[[Attack], bool]) -> list[AttackOutcome]:
    return [outcome for outcome in evidence.outcomes.values() if kind(outcome.suite_attack.attack)]


def _is_white_box(attack: Attack) -> bool:
    return attack.needs_gradients


def _is_transfer(attack: Attack) -> bool:
    return isinstance(attack, Transfer)


def _is_query(attack: Attack) -> bool:
    return not (attack.needs_gradients or attack.corruption or isinstance(attack, Transfer))
