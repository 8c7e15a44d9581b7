"""Accuracy against epsilon: what several masking checks look at, and what the report draws."""

import math
from dataclasses import dataclass

from torch import Tensor

from muquant.attacks import DDN, PGD, Attack, AttackResult
from muquant.robustness.evidence import Evidence
from muquant.robustness.report import AccuracyCurve

FACTORS = (0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
"""Multiples of the headline epsilon."""

STEPS = 40
"""Of PGD at the headline epsilon and above; below it fewer, of the same length."""

L2_FACTORS = tuple(quarters / 4 for quarters in range(17))
"""Multiples of the suite's `l2_bound` at which the curve over distances is drawn, alike for all models."""


@dataclass(frozen=True, eq=False)
class SweepPoint:
    """What PGD leaves of the probed images at one epsilon.

    Attributes:
        epsilon: in the headline norm.
        ce: bool [n], images that withstood PGD on the cross-entropy.
        margin: bool [n], images that withstood PGD on the logit margin.
    """

    epsilon: float
    ce: Tensor
    margin: Tensor

    @property
    def withstood(self) -> Tensor:
        """bool [n], images that withstood both."""
        return self.ce & self.margin


def sweep(evidence: Evidence) -> tuple[SweepPoint, ...]:
    """By rising epsilon: 0, `FACTORS` times the headline epsilon, and `grey_radius`."""
    grey, clean = grey_radius(evidence), correct(evidence)
    radii = {min(factor * radius(evidence), 2 * grey) for factor in FACTORS} | {grey}
    return SweepPoint(0.0, clean, clean), *(point(evidence, epsilon) for epsilon in sorted(radii - {0.0}))


def correct(evidence: Evidence) -> Tensor:
    """bool [n], the probed images that are classified correctly as they are."""
    return evidence.probe(pgd(evidence, radius(evidence), "ce")).attacked


def headline(evidence: Evidence) -> SweepPoint:
    """PGD at the headline epsilon."""
    return point(evidence, radius(evidence))


def point(evidence: Evidence, epsilon: float) -> SweepPoint:
    """PGD at one epsilon."""
    ce, margin = (withstood(evidence, pgd(evidence, epsilon, loss)) for loss in ("ce", "margin"))
    return SweepPoint(epsilon, ce, margin)


def withstood(evidence: Evidence, attack: Attack) -> Tensor:
    """bool [n], the probed images that are classified correctly and that an attack does not fool."""
    result = evidence.probe(attack)
    return result.attacked & ~result.success


def pgd(evidence: Evidence, epsilon: float, loss: str) -> PGD:
    """The attack of the sweep."""
    share = epsilon / radius(evidence) if epsilon < radius(evidence) else 1.0
    return PGD(epsilon=epsilon, norm=evidence.threat.norm, loss=loss, steps=max(round(STEPS * share), 1))


def radius(evidence: Evidence) -> float:
    """The headline epsilon."""
    assert evidence.threat.radius is not None
    return evidence.threat.radius


def grey_radius(evidence: Evidence) -> float:
    """The radius at which every ball holds the evenly grey image, on which no classifier beats chance.

    Half the diameter of [0, 1]^n: 0.5 in Linf, half the root of the number of values in L2, half of it in L1.
    """
    values = evidence.sample.images[0].numel()
    return 0.5 * {"linf": 1.0, "l2": math.sqrt(values), "l1": float(values)}[evidence.threat.norm]


def closest(evidence: Evidence) -> AttackResult:
    """What DDN, at any distance, found in the suite, or else finds on the probed images."""
    return next(
        (outcome.result for outcome in evidence.outcomes.values() if outcome.suite_attack.attack == DDN()),
        None,
    ) or evidence.probe(DDN())


def curves(evidence: Evidence) -> tuple[AccuracyCurve, ...]:
    """Accuracy against epsilon: under PGD in the headline norm, and from the distances of DDN in L2."""
    points, bound = sweep(evidence), evidence.settings.l2_bound
    return (
        AccuracyCurve(
            attack="PGD, worst of cross-entropy and logit margin",
            norm=evidence.threat.norm,
            count=len(evidence.probed),
            epsilon=tuple(point.epsilon for point in points),
            accuracy=tuple(float(point.withstood.double().mean()) for point in points),
        ),
        distance_curve("DDN", closest(evidence), tuple(factor * bound for factor in L2_FACTORS)),
    )


def distance_curve(attack: str, found: AttackResult, radii: tuple[float, ...]) -> AccuracyCurve:
    """Accuracy against L2 epsilon, from the distances of the examples that a smallest-norm attack found.

    Args:
        attack: its name.
        found: what it found, at any distance.
        radii: rising, from 0.
    """
    fooled = [found.success & (found.l2 <= radius) for radius in radii]
    left = tuple(float((found.attacked & ~success).double().mean()) for success in fooled)
    return AccuracyCurve(attack, "l2", len(found.attacked), radii, left)
