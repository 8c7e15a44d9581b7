"""Auto-PGD, whose step size follows the progress of the loss (Croce, Hein 2020, algorithm 1).

Where the paper and its authors' code differ, this does what the code does, by which figures are quoted: it
starts at the edge of the ball; a step size is halved also where just as many steps as asked raise the loss;
and whether the first step raises the loss is told from zero.
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from muquant.attacks.apgd_l1 import ascend_l1
from muquant.attacks.base import BallAttack
from muquant.attacks.losses import ce, targeted_dlr
from muquant.attacks.norms import Ball, copy_rows, per_image, random_edge, steepest
from muquant.attacks.problem import AttackProblem, LossFunction


@dataclass(frozen=True, kw_only=True)
class _APGD(BallAttack):
    """What both forms share.

    Attributes:
        steps: of one ascent, at least 1.
        restarts: ascents from new random points, at least 1.
        rho: the fraction of steps that must raise the loss for the step size to stay, 0..1.
        momentum: weight of the new step against the last one, 0..1.
        diversified: steps of epsilon from the image along a random direction of its logits, after which each
            ascent starts (ODI, Tashiro et al. 2020, who take 2); 0 for a random point of the ball's edge.
    """

    needs_gradients: ClassVar[bool] = True

    steps: int = 100
    restarts: int = 1
    rho: float = 0.75
    momentum: float = 0.75
    diversified: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_at_least(1, "steps", "restarts")
        self._check_at_least(0, "rho", "momentum", "diversified")

    def ascend(self, problem: AttackProblem, loss: LossFunction) -> None:
        """One ascent of the loss over the images that are not fooled yet."""
        rows = problem.alive()
        if not len(rows):
            return
        ball = problem.ball(rows)
        first = self._start(problem, rows, ball)
        if self.norm == "l1":
            ascend_l1(problem, loss, self.steps, rows, first)
            return
        _, value, gradient = problem.gradient(first, rows, loss)
        state = _State(rows, ball, first, value, gradient)
        marks = checkpoints(self.steps)
        for number in range(1, self.steps + 1):
            state.select(~problem.fooled[state.rows])
            if not len(state.rows):
                return
            state.move(1.0 if number == 1 else self.momentum)
            if number == self.steps:
                problem.logits(state.inputs, state.rows)
                return
            _, value, gradient = problem.gradient(state.inputs, state.rows, loss)
            state.judge(value, gradient)
            if number in marks:
                state.adapt(self.rho * (number - max([0, *(mark for mark in marks if mark < number)])))

    def _start(self, problem: AttackProblem, rows: Tensor, ball: Ball) -> Tensor:
        """Where an ascent over some rows begins, [M, ...]."""
        if not self.diversified:
            if ball.norm == "l1":
                return ball.clean + problem.normal(*ball.clean.shape)
            return random_edge(ball.clean, ball.radius, ball.norm, problem.generator)
        inputs, directions = ball.clean, problem.uniform(*problem.clean_logits().shape) * 2 - 1
        for _ in range(self.diversified):
            _, _, gradient = problem.gradient(
                inputs, rows, lambda logits, rows: (logits * directions[rows]).sum(1)
            )
            step = steepest(gradient, ball.norm)
            inputs = ball.project_(torch.add(inputs, step, alpha=ball.radius))
        return inputs


@dataclass(frozen=True, kw_only=True)
class APGDCE(_APGD):
    """Auto-PGD on the cross-entropy."""

    def run(self, problem: AttackProblem) -> None:
        """Ascend once for each restart."""
        for _ in range(self.restarts):
            self.ascend(problem, problem.objective(ce))


@dataclass(frozen=True, kw_only=True)
class APGDT(_APGD):
    """Auto-PGD on the targeted DLR loss, for each of the classes that the clean image is closest to.

    Where a class is aimed at, for that alone.

    Attributes:
        targets: classes tried, by falling logit of the clean image; at most all others.
    """

    targets: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_at_least(1, "targets")

    def run(self, problem: AttackProblem) -> None:
        """Ascend once for each restart and target."""
        order = problem.rivals()
        for _ in range(self.restarts):
            for rank in range(min(self.targets, order.shape[1])):
                classes = order[:, rank]

                def loss(logits: Tensor, rows: Tensor, classes: Tensor = classes) -> Tensor:
                    return targeted_dlr(logits, problem.labels[rows], classes[rows])

                self.ascend(problem, loss)


def checkpoints(steps: int) -> list[int]:
    """The steps at which the step size may be halved: ceil(p_j steps), p = 0.22, 0.41, 0.57 ..."""
    before, place, marks = 0.0, 0.22, []
    while place <= 1:
        marks.append(math.ceil(round(place * steps, 6)))
        before, place = place, place + max(place - before - 0.03, 0.06)
    return marks


class _State:
    """An ascent: for each image where it is, where it was best, its step size and its progress."""

    def __init__(self, rows: Tensor, ball: Ball, inputs: Tensor, value: Tensor, gradient: Tensor) -> None:
        self.rows, self.ball, self.inputs, self.before = rows, ball, inputs, inputs
        self.value, self.gradient = torch.zeros_like(value), gradient
        self.best, self.best_value, self.best_gradient = inputs.clone(), value.clone(), gradient.clone()
        self.step = torch.full_like(value, 2 * ball.radius)
        self.rises = torch.zeros_like(value)
        self.mark_value = value.clone()
        self.mark_halved = torch.ones_like(value, dtype=torch.bool)

    def select(self, left: Tensor) -> None:
        """Drop the images that are done."""
        if not left.all():
            self.ball = self.ball.select(left)
            for name, value in vars(self).items():
                if isinstance(value, Tensor):
                    setattr(self, name, value[left])

    def move(self, weight: float) -> None:
        """Take a step along the gradient by its weight, and part of the last step again by the rest."""
        direction = steepest(self.gradient, self.ball.norm)
        reached = torch.addcmul(self.inputs, per_image(self.step, direction), direction)
        moved = self.ball.project_(reached).sub_(self.inputs).mul_(weight).add_(self.inputs)
        moved += (self.inputs - self.before).mul_(1 - weight)
        self.before, self.inputs = self.inputs, self.ball.project_(moved)

    def judge(self, value: Tensor, gradient: Tensor) -> None:
        """Take in the loss and the gradient at the new place."""
        self.rises += value > self.value
        self.value, self.gradient = value, gradient
        better = (value > self.best_value).nonzero()[:, 0]
        copy_rows(better, self.inputs, self.best)
        copy_rows(better, gradient, self.best_gradient)
        self.best_value = torch.fmax(value, self.best_value)

    def adapt(self, enough: float) -> None:
        """At a checkpoint: halve the step, and go back to the best place, where progress was too small."""
        stuck = ~self.mark_halved & (self.best_value <= self.mark_value)
        halve = (self.rises <= enough) | stuck
        rows = halve.nonzero()[:, 0]
        self.step[rows] /= 2
        copy_rows(rows, self.best, self.inputs)
        copy_rows(rows, self.best_gradient, self.gradient)
        self.mark_halved, self.mark_value = halve, self.best_value
        self.rises = torch.zeros_like(self.rises)
