"""What the checks share: how figures are compared, and what the model answers."""

from collections.abc import Iterable

import torch
from torch import Tensor

from muquant.attacks import Threat
from muquant.attacks.base import BATCH_SIZE
from muquant.robustness.evidence import AttackOutcome, Evidence, Finding, fooled_within
from muquant.robustness.statistics import excess, wilson

LOSS_NAMES = {"ce": "cross-entropy", "margin": "margin"}
"""The losses that checks look at, in words."""


def gap(one: Tensor, other: Tensor, least: float, names: tuple[str, str]) -> Finding:
    """By how much one accuracy exceeds another.

    Args:
        one: bool [n], images that withstood an attack.
        other: bool [n], those of the same images that withstood another.
        least: the difference that counts, 0..1; where the 95 % interval of the paired difference is larger,
            that takes its place.
        names: what left them, in words.
    """
    value, interval = excess(one, other)
    left = [
        f"{name} {float(mask.double().mean()):.1%}" for name, mask in zip(names, (one, other), strict=True)
    ]
    return Finding(value, max(least, interval), f"of {len(one)} images {left[0]} and {left[1]} are left")


def share(count: int, total: int, most: float, explanation: str) -> Finding:
    """A share of images that exceeds `most` at the low end of its 95 % interval, where it fires.

    Args:
        count: images of which something is true, 0..total.
        total: 1 or more.
        most: the share that does not count yet, 0..1.
        explanation: with the figures in it.
    """
    value, (low, _) = count / total, wilson(count, total)
    return Finding(value, most + value - low, explanation)


def clearest(findings: Iterable[Finding]) -> Finding | None:
    """The finding that is furthest above its threshold, or else nearest to it; None of none."""
    return max(findings, key=lambda finding: finding.value - finding.threshold, default=None)


def survivors(outcomes: Iterable[AttackOutcome], threat: Threat, count: int) -> Tensor:
    """bool [count], the first images that withstood, inside `threat`, every attack that was run on them.

    The first of the attacks is one on all images: it knows which are classified correctly.
    """
    left = torch.ones(count, dtype=torch.bool)
    for outcome in outcomes:
        fooled = fooled_within(outcome.result, threat)[:count]
        left[: len(fooled)] &= ~fooled
        if not outcome.suite_attack.after:
            left[: len(fooled)] &= outcome.result.attacked[:count]
    return left


def clean_logits(evidence: Evidence) -> Tensor:
    """What the model answers to the probed images as they are, float32 [n, classes] on the CPU."""
    target, images = evidence.target, evidence.probed.images
    with target.ready(), torch.no_grad():
        parts = [target.logits(batch.to(target.device)) for batch in torch.split(images, BATCH_SIZE)]
    return torch.cat(parts).float().cpu()
