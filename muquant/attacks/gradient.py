"""FGSM, BIM, PGD and MIM: one loop, x = project(x + step * direction(gradient))."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import ClassVar

import torch
from torch import Tensor

from muquant.attacks.base import BallAttack
from muquant.attacks.losses import LOSSES
from muquant.attacks.norms import parse_epsilon, per_image, random_start, steepest
from muquant.attacks.problem import AttackProblem, Keep
from muquant.base.registry import look_up


@dataclass(frozen=True, kw_only=True)
class GradientAttack(BallAttack):
    """The loop that the family shares.

    Attributes:
        steps: gradient steps in each restart, at least 1.
        step_size: in units of the norm, a number or text such as "2/255"; None is the attack's own rule.
        loss: "ce", "margin" or "dlr".
        restarts: at least 1; further ones are for images that are not fooled yet.
        random_start: begin at a random point of the ball rather than at the image.
        stop_early: an image is done at its first success. Otherwise every step is taken, and the last
            success is kept, as other libraries do.
    """

    needs_gradients: ClassVar[bool] = True

    steps: int = 10
    step_size: float | str | None = None
    loss: str = "ce"
    restarts: int = 1
    random_start: bool = False
    stop_early: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        look_up("loss", self.loss, LOSSES)
        self._check_at_least(1, "steps", "restarts")
        if self.step_size is not None:
            parse_epsilon(self.step_size)

    @property
    def keep(self) -> Keep:
        """The first success, or the last."""
        return "first" if self.stop_early else "last"

    def run(self, problem: AttackProblem) -> None:
        """Ascend once for each restart."""
        for number in range(1, self.restarts + 1):
            rows, inputs = self.ascend(problem, drop=self.stop_early)
            if not len(rows):
                return
            if self.stop_early and number == self.restarts:
                problem.propose(inputs, rows)
            else:
                problem.logits(inputs, rows)

    def examples(self, problem: AttackProblem) -> Iterator[Tensor]:
        """The last iterates of each restart: every step is taken, also after the model is fooled."""
        for _ in range(self.restarts):
            yield self.ascend(problem, drop=False)[1]

    def ascend(self, problem: AttackProblem, *, drop: bool) -> tuple[Tensor, Tensor]:
        """One restart; returns the rows [M] that took all steps, and their last iterates [M, ...].

        Args:
            problem: the batch.
            drop: leave out images as soon as they are fooled; otherwise all rows take all steps.
        """
        loss, norm = problem.objective(LOSSES[self.loss]), self.norm
        rows = problem.alive() if drop else problem.rows()
        ball = problem.ball(rows)
        inputs = (
            random_start(ball.clean, ball.radius, norm, problem.generator)
            if self.random_start
            else ball.clean
        )
        memory = torch.zeros_like(inputs)
        for _ in range(self.steps):
            if not len(rows):
                break
            _, _, gradient = problem.gradient(inputs, rows, loss)
            if drop and problem.fooled[rows].any():
                left = ~problem.fooled[rows]
                rows, ball, inputs = rows[left], ball.select(left), inputs[left]
                memory, gradient = memory[left], gradient[left]
            memory = self.accumulate(memory, gradient)
            step = self.step(ball.radius)
            inputs = ball.project_(torch.add(inputs, steepest(memory, norm), alpha=step))
        return rows, inputs

    def step(self, radius: float) -> float:
        """The length of a step."""
        return self.rule(radius) if self.step_size is None else parse_epsilon(self.step_size)

    def rule(self, radius: float) -> float:
        """The length of a step where none is given: all steps together reach the ball's edge."""
        return radius / self.steps

    def accumulate(self, memory: Tensor, gradient: Tensor) -> Tensor:
        """What the direction is taken from: the gradient, or a momentum."""
        return gradient


@dataclass(frozen=True, kw_only=True)
class FGSM(GradientAttack):
    """Fast gradient sign method, one step of length epsilon (Goodfellow, Shlens, Szegedy 2015)."""

    steps: int = field(default=1, init=False)


@dataclass(frozen=True, kw_only=True)
class BIM(GradientAttack):
    """Basic iterative method, from the image itself, steps of epsilon / steps (Kurakin et al. 2017)."""


@dataclass(frozen=True, kw_only=True)
class PGD(GradientAttack):
    """Projected gradient descent from a random point, steps of 2.5 epsilon / steps (Madry et al. 2018)."""

    steps: int = 40
    random_start: bool = True

    def rule(self, radius: float) -> float:
        """2.5 times the radius over the steps: any point of the ball can be reached from any other."""
        return 2.5 * radius / self.steps


@dataclass(frozen=True, kw_only=True)
class MIM(GradientAttack):
    """Momentum iterative method (Dong et al. 2018): g <- decay g + gradient / ||gradient||_1.

    Attributes:
        decay: of the momentum, at least 0.
    """

    decay: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_at_least(0, "decay")

    def accumulate(self, memory: Tensor, gradient: Tensor) -> Tensor:
        """The momentum."""
        length = per_image(gradient.flatten(1).abs().sum(1), gradient).clamp(min=1e-12)
        return self.decay * memory + gradient / length
