"""Auto-PGD's ascent in L1, by ever fewer values of the gradient (Croce, Hein 2021, "Mind the box")."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from muquant.attacks.norms import Ball, copy_rows, per_image, sparse_signs
from muquant.attacks.problem import AttackProblem, LossFunction

STAGES = ((3.0, 0.3), (2.0, 0.3), (1.0, 0.4))
"""(multiple of epsilon, share of the steps): an ascent begins in a larger ball, and moves into the next."""

CHECKED = 0.04
"""Share of a stage's steps after which sparsity and step size are adapted, again and again."""

FEWER, STAYS = 1.5, 0.95
"""By what fewer values move than the best point has changed; the ratio below which these count as falling."""

SHRINK, SMALLEST = 1.5, 0.1
"""By what a step is divided where sparsity stays, and its least length in units of the ball."""


def ascend_l1(problem: AttackProblem, loss: LossFunction, steps: int, rows: Tensor, first: Tensor) -> None:
    """One ascent of the loss over some rows.

    Args:
        problem: the batch.
        loss: what is raised.
        steps: of all stages together.
        rows: int64 [M].
        first: where it begins, [M, ...] in [0, 1]; it is moved into the ball of the first stage.
    """
    early = [min(math.ceil(share * steps), steps) for _, share in STAGES[:-1]]
    for (multiple, _), count in zip(STAGES, [*early, max(steps - sum(early), 0)], strict=True):
        if not len(rows):
            return
        ball = Ball(problem.clean[rows], multiple * problem.radius, "l1")
        rows, first = _stage(problem, loss, count, rows, ball, ball.project_(first.clone()))


def _stage(
    problem: AttackProblem, loss: LossFunction, steps: int, rows: Tensor, ball: Ball, first: Tensor
) -> tuple[Tensor, Tensor]:
    """Ascend in one ball; returns the rows that are not fooled yet, and where their loss was highest."""
    _, value, gradient = problem.gradient(first, rows, loss)
    state = _State.begin(rows, ball, first, value, gradient)
    every = max(int(CHECKED * steps), 1)
    for number in range(1, steps + 1):
        state.select(~problem.fooled[state.rows])
        if not len(state.rows):
            break
        state.move()
        _, value, gradient = problem.gradient(state.inputs, state.rows, loss)
        state.judge(value, gradient)
        if number % every == 0:
            state.adapt()
    state.select(~problem.fooled[state.rows])
    return state.rows, state.best


@dataclass
class _State:
    """Where a stage is; tensors have a row for each image.

    Attributes:
        changed: values in which the best point differed from the image when that was last counted, [M].
        share: of the values that move, [M].
        step: in L1, [M].
    """

    rows: Tensor
    ball: Ball
    inputs: Tensor
    gradient: Tensor
    best: Tensor
    best_value: Tensor
    best_gradient: Tensor
    changed: Tensor
    share: Tensor
    step: Tensor

    @classmethod
    def begin(cls, rows: Tensor, ball: Ball, first: Tensor, value: Tensor, gradient: Tensor) -> "_State":
        changed = _changed(first, ball.clean)
        share, step = changed / first[0].numel() / FEWER, torch.full_like(value, ball.radius)
        best = first.clone(), value.clone(), gradient.clone()
        return cls(rows, ball, first, gradient, *best, changed, share, step)

    def select(self, left: Tensor) -> None:
        """Drop the images that are done."""
        if not left.all():
            self.ball = self.ball.select(left)
            for name, value in vars(self).items():
                if isinstance(value, Tensor):
                    setattr(self, name, value[left])

    def move(self) -> None:
        """Take a step along the signs of the largest values of the gradient."""
        direction = sparse_signs(self.gradient, self.share)
        self.inputs = self.ball.project_(self.inputs + per_image(self.step, direction) * direction)

    def judge(self, value: Tensor, gradient: Tensor) -> None:
        """Take in the loss and the gradient at the new place."""
        self.gradient = gradient
        better = (value > self.best_value).nonzero()[:, 0]
        copy_rows(better, self.inputs, self.best)
        copy_rows(better, gradient, self.best_gradient)
        self.best_value = torch.fmax(value, self.best_value)

    def adapt(self) -> None:
        """Follow the sparsity of the best point: where it falls, go on from there with a full step."""
        changed = _changed(self.best, self.ball.clean)
        falls = changed / self.changed.clamp(min=1) < STAYS
        self.share = changed / self.best[0].numel() / FEWER
        shorter = (self.step / SHRINK).clamp(min=SMALLEST * self.ball.radius)
        self.step = torch.where(falls, self.ball.radius, shorter)
        self.changed = changed
        rows = falls.nonzero()[:, 0]
        copy_rows(rows, self.best, self.inputs)
        copy_rows(rows, self.best_gradient, self.gradient)


def _changed(inputs: Tensor, clean: Tensor) -> Tensor:
    """In how many values each image differs from the clean one, float32 [M]."""
    return (inputs != clean).flatten(1).sum(1).to(inputs.dtype)
