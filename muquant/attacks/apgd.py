"""Auto-PGD, whose step size follows the progress of the loss (Croce, Hein 2020, algorithm 1)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from muquant.attacks.base import BallAttack
from muquant.attacks.losses import ce, targeted_dlr
from muquant.attacks.norms import per_image, project, random_start, steepest
from muquant.attacks.problem import BatchLoss, Problem


@dataclass(frozen=True, kw_only=True)
class _APGD(BallAttack):
    """What both forms share.

    Attributes:
        steps: of one ascent, at least 1.
        restarts: ascents from new random points, at least 1.
        rho: the fraction of steps that must raise the loss for the step size to stay, 0..1.
        momentum: weight of the new step against the last one, 0..1.
    """

    needs_gradients: ClassVar[bool] = True

    steps: int = 100
    restarts: int = 1
    rho: float = 0.75
    momentum: float = 0.75

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_at_least(1, "steps", "restarts")
        self._check_at_least(0, "rho", "momentum")

    def ascend(self, problem: Problem, loss: BatchLoss) -> None:
        """One ascent of the loss over the images that are not fooled yet."""
        rows = problem.alive()
        if not len(rows):
            return
        first = random_start(problem.clean[rows], problem.radius, self.norm, problem.generator)
        _, value, gradient = problem.gradient(first, rows, loss)
        state = _State(rows, problem.clean[rows], first, value, gradient, 2 * problem.radius)
        marks = checkpoints(self.steps)
        for number in range(1, self.steps + 1):
            state.select(~problem.fooled[state.rows])
            if not len(state.rows):
                return
            state.move(self, problem.radius, first=number == 1)
            if number == self.steps:
                problem.logits(state.inputs, state.rows)
                return
            _, value, gradient = problem.gradient(state.inputs, state.rows, loss)
            state.judge(value, gradient)
            if number in marks:
                state.adapt(self.rho * (number - max([0, *(mark for mark in marks if mark < number)])))


@dataclass(frozen=True, kw_only=True)
class APGDCE(_APGD):
    """Auto-PGD on the cross-entropy."""

    def run(self, problem: Problem) -> None:
        """Ascend once for each restart."""
        for _ in range(self.restarts):
            self.ascend(problem, lambda logits, rows: ce(logits, problem.labels[rows]))


@dataclass(frozen=True, kw_only=True)
class APGDT(_APGD):
    """Auto-PGD on the targeted DLR loss, for each of the classes that the clean image is closest to.

    Attributes:
        targets: classes tried, by falling logit of the clean image; at most all others.
    """

    targets: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_at_least(1, "targets")

    def run(self, problem: Problem) -> None:
        """Ascend once for each restart and target."""
        order = problem.logits(problem.clean, problem.rows())
        order = order.scatter(1, problem.labels[:, None], -torch.inf).argsort(dim=1, descending=True)
        for _ in range(self.restarts):
            for rank in range(min(self.targets, order.shape[1] - 1)):
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

    def __init__(
        self, rows: Tensor, clean: Tensor, inputs: Tensor, value: Tensor, gradient: Tensor, step: float
    ) -> None:
        self.rows, self.clean, self.inputs, self.before = rows, clean, inputs, inputs
        self.value, self.gradient = value, gradient
        self.best, self.best_value, self.best_gradient = inputs.clone(), value.clone(), gradient.clone()
        self.step = torch.full_like(value, step)
        self.rises = torch.zeros_like(value)
        self.mark_value = value.clone()
        self.mark_halved = torch.ones_like(value, dtype=torch.bool)

    def select(self, left: Tensor) -> None:
        """Drop the images that are done."""
        if not left.all():
            for name, tensor in vars(self).items():
                setattr(self, name, tensor[left])

    def move(self, attack: _APGD, radius: float, *, first: bool) -> None:
        """Take a step along the gradient, and part of the last step again."""
        weight = 1.0 if first else attack.momentum
        step = per_image(self.step, self.inputs) * steepest(self.gradient, attack.norm)
        reached = project(self.inputs + step, self.clean, radius, attack.norm)
        moved = self.inputs + weight * (reached - self.inputs) + (1 - weight) * (self.inputs - self.before)
        self.before, self.inputs = self.inputs, project(moved, self.clean, radius, attack.norm)

    def judge(self, value: Tensor, gradient: Tensor) -> None:
        """Take in the loss and the gradient at the new place."""
        self.rises += value > self.value
        self.value, self.gradient = value, gradient
        better = value > self.best_value
        shape = per_image(better, gradient)
        self.best = torch.where(shape, self.inputs, self.best)
        self.best_gradient = torch.where(shape, gradient, self.best_gradient)
        self.best_value = torch.where(better, value, self.best_value)

    def adapt(self, enough: float) -> None:
        """At a checkpoint: halve the step, and go back to the best place, where progress was too small."""
        stuck = ~self.mark_halved & (self.best_value <= self.mark_value)
        halve = (self.rises < enough) | stuck
        self.step = torch.where(halve, self.step / 2, self.step)
        shape = per_image(halve, self.inputs)
        self.inputs = torch.where(shape, self.best, self.inputs)
        self.gradient = torch.where(shape, self.best_gradient, self.gradient)
        self.value = torch.where(halve, self.best_value, self.value)
        self.mark_halved, self.mark_value = halve, self.best_value.clone()
        self.rises = torch.zeros_like(self.rises)
