"""Checks that look at accuracy against epsilon: it falls, goes on falling, and ends at chance."""

from itertools import combinations

from muquant.robustness.checks.measures import clearest, gap, share
from muquant.robustness.evidence import Evidence, Finding
from muquant.robustness.sweep import closest, correct, grey_radius, headline, point, radius, sweep

RISE, UNREACHED = 0.01, 0.01
"""Shares of the images that count."""

PLATEAU, BROKEN = 0.95, 0.05
"""Share of what epsilon leaves that twice epsilon leaves too; least share that epsilon must fool."""


def unbounded(evidence: Evidence) -> Finding | None:
    """Fires where PGD leaves more than chance at an epsilon at which every image can be made evenly grey.

    That is 0.5 in Linf. Then all images share a point, and no classifier is right on more than the most
    common class: what is left above that is a failure of the attack (Athalye et al. 2018, section 3.1). Not
    applied to a model that abstains, as it may on grey images.
    """
    if evidence.abstains:
        return None
    epsilon = grey_radius(evidence)
    left = point(evidence, epsilon).withstood
    count, chance = int(left.sum()), evidence.chance(len(left))
    explanation = (
        f"PGD at epsilon {epsilon:.4g}, where every image can be made evenly grey, leaves {count} of "
        f"{len(left)} images, chance leaves {chance:.1%}"
    )
    return share(count, len(left), chance, explanation)


def unbounded_l2(evidence: Evidence) -> Finding | None:
    """Fires where DDN, which may go any distance, fails on over 1 % of the images.

    There is an example for every image that is not alone in its class (Athalye et al. 2018, section 3.1;
    Pintor et al. 2022, unconstrained attack failure).
    """
    found = closest(evidence)
    count = int(found.attacked.sum())
    if not count:
        return None
    missed = count - int(found.success.sum())
    return share(missed, count, UNREACHED, f"DDN at any distance misses {missed} of {count} images")


def rises(evidence: Evidence) -> Finding | None:
    """Fires where PGD leaves over 1 point more at a larger epsilon.

    The larger ball holds the smaller one, so accuracy cannot rise (Carlini et al. 2019).
    """
    return clearest(
        gap(
            large.withstood,
            small.withstood,
            RISE,
            (f"at epsilon {large.epsilon:.4g}", f"at epsilon {small.epsilon:.4g}"),
        )
        for small, large in combinations(sweep(evidence), 2)
    )


def plateau(evidence: Evidence) -> Finding | None:
    """Fires where PGD at twice epsilon leaves over 95 % of the images that it leaves at epsilon.

    An attack that fools some images, and with twice the room no others, stands still for want of a gradient
    (Athalye et al. 2018, section 3.1; Carlini et al. 2019). Not applied where epsilon fools under 5 % of the
    images: it may just be small.
    """
    small, large = headline(evidence), point(evidence, 2 * min(radius(evidence), grey_radius(evidence)))
    left = int(small.withstood.sum())
    if not evidence.above_chance(small.withstood) or left > (1 - BROKEN) * int(correct(evidence).sum()):
        return None
    both = int((small.withstood & large.withstood).sum())
    explanation = (
        f"of {left} images that PGD leaves at epsilon {small.epsilon:.4g}, {both} are left at "
        f"{large.epsilon:.4g}"
    )
    return share(both, left, PLATEAU, explanation)
