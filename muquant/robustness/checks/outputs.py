"""Checks that look at the model's outputs: they must be logits, and the same ones at every call."""

import torch

from muquant.attacks import Averaged
from muquant.robustness.checks.measures import clean_logits, share
from muquant.robustness.evidence import Evidence, Finding

CALLS, CHANGE = 5, 1e-4
"""Calls that are compared, and the change that counts in units of the logits' length, AutoAttack's."""

UNSTEADY = 0.01
"""Share of the images whose class may change with another draw."""

SUM_ERROR = 1e-3
DISTRIBUTIONS = 0.5
"""How far a sum of probabilities may be from 1, and the share of the images that counts."""


def random_logits(evidence: Evidence) -> Finding | None:
    """Fires where five calls with the same images give logits that differ by over 1e-4 of their length.

    Gradients of a model that draws numbers are gradients of another draw (Athalye et al. 2018, stochastic
    gradients; AutoAttack's flag for randomised defences). Where mean logits of several passes are attacked
    instead, it fires where their class changes for over 1 % of the images: then these are too few passes.
    """
    calls = torch.stack([clean_logits(evidence) for _ in range(CALLS)]).double()
    if isinstance(evidence.module, Averaged):
        classes = calls.argmax(2)
        count, total = int((classes != classes[0]).any(0).sum()), classes.shape[1]
        words = f"over {CALLS} calls with the mean of {evidence.module.passes} passes each, the class of"
        return share(count, total, UNSTEADY, f"{words} {count} of {total} images changes")
    lengths = calls[0].norm(dim=1).clamp(min=1e-10)
    change = float(((calls - calls[0]).norm(dim=2) / lengths).max())
    words = f"over {CALLS} calls with the same images, logits change by up to {change:.2g} of their length"
    if change > CHANGE:
        words += "; attack the mean of several passes, --eot 20"
    return Finding(change, CHANGE, words)


def softmax_output(evidence: Evidence) -> Finding | None:
    """Fires where the outputs for most images lie in 0..1 and sum to 1: probabilities, not logits.

    The cross-entropy takes a second softmax of them, and the margin saturates with the first one (Carlini,
    Wagner 2017; AutoAttack's flag).
    """
    outputs = clean_logits(evidence).double()
    inside = ((outputs >= -SUM_ERROR) & (outputs <= 1 + SUM_ERROR)).all(1)
    sums = (outputs.sum(1) - 1).abs() <= SUM_ERROR
    count = int((inside & sums).sum())
    explanation = f"the outputs for {count} of {len(outputs)} images lie in 0..1 and sum to 1"
    return share(count, len(outputs), DISTRIBUTIONS, explanation)
