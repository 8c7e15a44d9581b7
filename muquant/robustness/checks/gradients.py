"""Checks that look at what attacks follow: gradients that vanish, and a loss that still rises at the end."""

import math
from contextlib import AbstractContextManager
from dataclasses import dataclass, fields

import torch
from torch import Tensor

from muquant.attacks import LOSSES, PGD, Goal, Target
from muquant.attacks.base import BATCH_SIZE
from muquant.attacks.norms import project, random_start, steepest
from muquant.attacks.problem import AttackProblem
from muquant.base.seeds import generator_for
from muquant.robustness.checks.measures import LOSS_NAMES, clean_logits, gap, share
from muquant.robustness.evidence import Evidence, Finding
from muquant.robustness.statistics import Z, excess
from muquant.robustness.sweep import STEPS, correct, headline, pgd, radius, sweep, withstood

SCALE = 0.02
"""Difference of accuracy that counts."""

EASY_GAP = 8.0
"""Gap between the two largest logits at which PGD on the cross-entropy finds most; README.md has figures."""

ZERO = 0.05
"""Share of the images that counts."""

STILL_RISING, LAST, TRACED = 0.05, 10, 50
"""Share of a loss's whole rise that counts, the last steps in which it is made, images that are looked at."""


def scale(evidence: Evidence) -> Finding | None:
    """Fires where the size of the logits hides over 2 points of what PGD on the cross-entropy could find.

    Large logits saturate softmax, and the gradient of the cross-entropy drowns in rounding (Carlini, Wagner
    2017; Gupta, Ajanthan 2022). At the epsilon where PGD on the margin is furthest ahead of PGD on the
    cross-entropy, PGD on the cross-entropy of rescaled logits must be ahead as well: the margin alone would
    accuse honest models that it happens to suit better.
    """
    points = [point for point in sweep(evidence) if evidence.above_chance(point.ce)]
    if not points:
        return None
    point = max(points, key=lambda point: excess(point.ce, point.margin)[0])
    name = f"under PGD on {LOSS_NAMES['ce']} at epsilon {point.epsilon:.4g}"
    on_margin = gap(point.ce, point.margin, SCALE, (name, f"on {LOSS_NAMES['margin']}"))
    if not on_margin.fired:
        return on_margin
    attack = TemperedPGD.of(pgd(evidence, point.epsilon, "ce"), _temperature(evidence))
    words = f"on {LOSS_NAMES['ce']} of logits / {attack.temperature:g}"
    rescaled = gap(point.ce, withstood(evidence, attack), SCALE, (name, words))
    return min(on_margin, rescaled, key=lambda finding: finding.value - finding.threshold)


def zero_gradients(evidence: Evidence) -> Finding | None:
    """Fires where the gradient of cross-entropy or margin is exactly zero for over 5 % of the images.

    An attack has no direction there: activations are rounded, or softmax saturates even float32 (AutoAttack's
    flag; Pintor et al. 2022, unavailable gradients). Taken at the images that are classified correctly.
    """
    images, labels = _images(evidence, correct(evidence))
    if not len(labels):
        return None
    zero = {loss: _without_gradient(evidence, images, labels, loss) for loss in LOSS_NAMES}
    words = " and ".join(f"{count} on {LOSS_NAMES[loss]}" for loss, count in zero.items())
    return share(max(zero.values()), len(labels), ZERO, f"of {len(labels)} gradients, {words} are zero")


def incomplete_optimisation(evidence: Evidence) -> Finding | None:
    """Fires where PGD's best margin so far makes over 5 % of its whole rise in the last 10 of 40 steps.

    More steps would find more (Pintor et al. 2022, incomplete optimisation). The mean over up to 50 images
    that PGD left.
    """
    left = headline(evidence).withstood
    images, labels = (part[:TRACED] for part in _images(evidence, left))
    if not evidence.above_chance(left):
        return None
    norm, epsilon, step = evidence.threat.norm, radius(evidence), 2.5 * radius(evidence) / STEPS
    inputs = random_start(images, epsilon, norm, generator_for(evidence.runner.seed, "trace"))
    margins = []
    for _ in range(STEPS):
        value, gradient = _ascent(evidence, inputs, labels, "margin")
        margins.append(value)
        inputs = project(inputs + step * steepest(gradient, norm), images, epsilon, norm)
    trace = torch.stack(margins).double()
    best = trace.cummax(0).values
    rise = (best[-1] - trace.amin(0)).clamp(min=1e-12)
    late = (best[-1] - best[-1 - LAST]) / rise
    share_late, interval = float(late.mean()), Z * float(late.std(correction=0)) / math.sqrt(len(late))
    explanation = (
        f"PGD's best margin on {len(late)} images makes {share_late:.1%} of its rise in the last {LAST} of "
        f"{STEPS} steps"
    )
    return Finding(share_late, max(STILL_RISING, interval), explanation)


@dataclass(frozen=True, kw_only=True)
class TemperedPGD(PGD):
    """PGD on logits that are divided by a number, which changes no decision (Gupta, Ajanthan 2022).

    Attributes:
        temperature: that number, above 0.
    """

    temperature: float

    @classmethod
    def of(cls, attack: PGD, temperature: float) -> "TemperedPGD":
        """The same attack on tempered logits."""
        return cls(
            **{field.name: getattr(attack, field.name) for field in fields(attack)}, temperature=temperature
        )

    def run(self, problem: AttackProblem) -> None:
        """Attack the tempered target."""
        problem.target = Tempered(problem.target, self.temperature)
        super().run(problem)


class Tempered:
    """A target whose logits are those of another, divided by a temperature."""

    def __init__(self, target: Target, temperature: float) -> None:
        self.target, self.temperature = target, temperature
        self.differentiable, self.device = target.differentiable, target.device

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits [N, classes] / temperature."""
        return self.target.logits(inputs) / self.temperature

    def ready(self) -> AbstractContextManager[None]:
        """What the other needs."""
        return self.target.ready()


def _temperature(evidence: Evidence) -> float:
    """The power of two that brings the median gap between the two largest logits to 8..16, at least 1.

    A power of two, so that processes that round differently still run the same attack.
    """
    first, second = clean_logits(evidence)[correct(evidence)].topk(2, dim=1).values.T
    median = float((first - second).median())
    return 2.0 ** max(math.floor(math.log2(max(median, 1e-30) / EASY_GAP)), 0)


def _without_gradient(evidence: Evidence, images: Tensor, labels: Tensor, loss: str) -> int:
    """The number of images at which the gradient of a loss is zero in every value."""
    batches = zip(torch.split(images, BATCH_SIZE), torch.split(labels, BATCH_SIZE), strict=True)
    gradients = torch.cat([_ascent(evidence, *batch, loss)[1] for batch in batches])
    return int((gradients.flatten(1) == 0).all(1).sum())


def _images(evidence: Evidence, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Some of the probed images and their labels, on the model's device."""
    sample, device = evidence.probed, evidence.target.device
    return sample.images[chosen].to(device), sample.labels[chosen].to(device)


def _ascent(evidence: Evidence, inputs: Tensor, labels: Tensor, loss: str) -> tuple[Tensor, Tensor]:
    """A loss [n] and its gradient [n, ...] by the inputs; zero where there is none."""
    target, leaf = evidence.target, inputs.detach().requires_grad_()
    goal = Goal(labels, abstains=evidence.abstains)
    with target.ready(), torch.enable_grad():
        value = goal.objective(LOSSES[loss], goal.logits(target.logits(leaf).float()))
        gradient = None
        if value.requires_grad:
            (gradient,) = torch.autograd.grad(value.sum(), leaf, allow_unused=True)
    return value.detach(), torch.zeros_like(inputs) if gradient is None else gradient.nan_to_num(0, 0, 0)
