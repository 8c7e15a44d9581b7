"""FAB-T: from the boundary to each of several classes ever closer to the image (Croce, Hein 2020, "FAB")."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from muquant.attacks.base import BallAttack
from muquant.attacks.norms import Norm, per_image, random_edge, size
from muquant.attacks.problem import AttackProblem


@dataclass(frozen=True, kw_only=True)
class FABT(BallAttack):
    """Step onto the boundary as the gradient sees it, drawn towards the image; back off where it is crossed.

    It looks for the smallest distance, whatever epsilon is, so that it finds what attacks that follow a loss
    inside the ball do not. An image is done at its first example inside the ball.

    Attributes:
        steps: for each class, at least 1; two passes each.
        targets: classes tried, by falling logit of the clean image; at most all others; the one aimed at
            alone, where there is one.
        restarts: for each class; further ones start at random, half of epsilon away.
        pull: the largest weight of the step that starts at the image, 0..1; the paper's alpha_max.
        overshoot: by what a step onto the boundary is lengthened, at least 1; eta.
        back: the share of the distance that is left after the boundary was crossed, 0..1; beta.
    """

    needs_gradients: ClassVar[bool] = True

    steps: int = 100
    targets: int = 9
    restarts: int = 1
    pull: float = 0.1
    overshoot: float = 1.05
    back: float = 0.9

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_at_least(1, "steps", "targets", "restarts", "overshoot")
        self._check_at_least(0, "pull", "back")

    def run(self, problem: AttackProblem) -> None:
        """Approach each class in turn."""
        order = problem.rivals()
        for rank in range(min(self.targets, order.shape[1])):
            for number in range(self.restarts):
                self._approach(problem, order[:, rank], at_random=number > 0)

    def _approach(self, problem: AttackProblem, classes: Tensor, *, at_random: bool) -> None:
        """Approach the boundary to one class of each image, int64 [N]."""
        rows, norm = problem.alive(), self.norm
        if not len(rows):
            return
        clean = problem.ball(rows).clean
        inputs = random_edge(clean, problem.radius / 2, norm, problem.generator) if at_random else clean

        def lead(logits: Tensor, rows: Tensor) -> Tensor:
            pair = logits.gather(1, torch.stack((classes[rows], problem.labels[rows]), dim=1))
            return pair[:, 0] - pair[:, 1]

        for _ in range(self.steps):
            _, value, slope = problem.gradient(inputs, rows, lead)
            at_clean = value + (slope * (clean - inputs)).flatten(1).sum(1)
            here = to_boundary(inputs, value, slope, norm)
            there = to_boundary(clean, at_clean, slope, norm)
            near, far = (size(step, norm).clamp(min=1e-8) for step in (here, there))
            weight = per_image((near / (near + far)).clamp(max=self.pull), inputs)
            reached = (inputs + self.overshoot * here) * (1 - weight)
            inputs = (reached + (clean + self.overshoot * there) * weight).clamp_(0, 1)
            crossed = problem.reached(problem.logits(inputs, rows), rows)
            left = ~problem.fooled[rows]
            if not left.all():
                rows, clean, inputs, crossed = rows[left], clean[left], inputs[left], crossed[left]
                if not len(rows):
                    return
            inputs = torch.where(per_image(crossed, inputs), clean + (inputs - clean) * self.back, inputs)


def to_boundary(points: Tensor, value: Tensor, slope: Tensor, norm: Norm) -> Tensor:
    """The smallest steps after which a linear function is 0, or as near to it as [0, 1] allows.

    Args:
        points: [N, ...] in [0, 1].
        value: [N], the function there.
        slope: [N, ...], its gradient.
        norm: in which steps are measured.

    Returns:
        [N, ...]; points and steps add up to values in [0, 1].
    """
    towards = -slope.sign() * per_image(torch.where(value >= 0, 1.0, -1.0), slope)
    room = torch.where(towards > 0, 1 - points, points).mul_(towards.abs()).flatten(1)
    steep, wanted = slope.abs().flatten(1), value.abs()
    if norm == "l1":
        amount = _steepest_first(steep, room, wanted)
    elif norm == "linf":
        amount = room.fmin(_level(steep, steep * room, wanted))
    else:
        amount = room.fmin(_level(steep.square(), steep * room, wanted) * steep)
    return towards * amount.reshape(points.shape)


def _steepest_first(steep: Tensor, room: Tensor, wanted: Tensor) -> Tensor:
    """How far each value goes so that steep * amount adds up to what is wanted, the steepest ones first."""
    order = steep.argsort(dim=1, descending=True)
    slopes, rooms = steep.gather(1, order), room.gather(1, order)
    gains = slopes * rooms
    missing = (wanted[:, None] - gains.cumsum(1) + gains).clamp(min=0)
    amount = torch.where(slopes > 0, missing / slopes, 0.0).minimum(rooms)
    return torch.zeros_like(room).scatter(1, order, amount)


def _level(rates: Tensor, limits: Tensor, wanted: Tensor) -> Tensor:
    """The level [N, 1] at which the sum of min(level * rates, limits) is what is wanted; infinite if none is.

    The sum is concave and made of straight pieces, so that Newton's method comes to its piece from below.

    Args:
        rates: [N, n], at least 0.
        limits: [N, n], at least 0.
        wanted: [N], at least 0.
    """
    full = torch.zeros_like(rates, dtype=torch.bool)
    while True:
        rising = rates.masked_fill(full, 0).sum(1)
        rest = wanted - limits.masked_fill(~full, 0).sum(1)
        level = torch.where(rising > 0, rest.clamp(min=0) / rising, torch.inf)[:, None]
        filled = full | (rates * level >= limits)
        if torch.equal(filled, full):
            return level
        full = filled
