"""Carlini and Wagner's L2 attack in tanh space with a binary search (Carlini, Wagner 2017)."""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from muquant.attacks.base import DistanceAttack
from muquant.attacks.losses import margin
from muquant.attacks.norms import per_image
from muquant.attacks.problem import AttackProblem

INSIDE = 0.999999
"""Factor that keeps pixels at exactly 0 and 1 at a finite place in tanh space."""


@dataclass(frozen=True, kw_only=True)
class CarliniWagner(DistanceAttack):
    """Minimise ||x' - x||^2 + c max(z_y - max z_j + kappa, 0) with Adam, and bisect c.

    Where a class t is aimed at, max z_j - z_t takes the place of z_y - max z_j.

    Pixels at exactly 0 or 1 move slowly in tanh space: 100 steps at a learning rate of 0.01 hardly move
    them, so keep the 1,000, or take a rate of 0.1.

    Attributes:
        epsilon: the L2 distance within which a success counts; None for any.
        searches: values of c tried, at least 1.
        steps: of Adam for each c, at least 1.
        lr: learning rate of Adam in tanh space.
        c: the first value of c.
        kappa: confidence, by how much the wrong logit must win, at least 0.
        abort_early: an image is left alone for the rest of a c once a tenth of the steps gained nothing.
    """

    needs_gradients: ClassVar[bool] = True

    searches: int = 9
    steps: int = 1000
    lr: float = 0.01
    c: float = 1e-3
    kappa: float = 0.0
    abort_early: bool = True

    def __post_init__(self) -> None:
        _ = self.threat
        self._check_at_least(1, "searches", "steps")
        self._check_at_least(1e-12, "lr", "c")
        self._check_at_least(0, "kappa")

    @property
    def confidence(self) -> float:
        """Kappa."""
        return self.kappa

    def run(self, problem: AttackProblem) -> None:
        """Search c by bisection for each image; it is multiplied by 10 until something is found."""
        count, device = len(problem.clean), problem.clean.device
        low, high = torch.zeros(count, device=device), torch.full((count,), torch.inf, device=device)
        c = torch.full((count,), self.c, device=device)
        for _ in range(self.searches):
            fooled = self._minimise(problem, c)
            high = torch.where(fooled, torch.minimum(high, c), high)
            low = torch.where(fooled, low, torch.maximum(low, c))
            c = torch.where(high.isinf(), c * 10, (low + high) / 2)

    def _minimise(self, problem: AttackProblem, c: Tensor) -> Tensor:
        """Run Adam for one c [N]; returns whether it met an image that fools, bool [N]."""
        fooled = torch.zeros(len(c), dtype=torch.bool, device=c.device)
        rows, clean = problem.rows(), problem.clean
        place = torch.atanh((2 * clean - 1) * INSIDE)
        first, second = torch.zeros_like(place), torch.zeros_like(place)
        best = torch.full_like(c, torch.inf)
        checked = best.clone()

        lead = problem.objective(margin)

        def hinge(logits: Tensor, rows: Tensor) -> Tensor:
            return (self.kappa - lead(logits, rows)).clamp(min=0)

        for number in range(1, self.steps + 1):
            tanh = place.tanh()
            inputs = tanh.add(1).mul_(0.5).clamp_(0, 1)
            logits, loss, gradient = problem.gradient(inputs, rows, hinge)
            fooled[rows] |= problem.reached(logits, rows)
            offset, weight = inputs - clean, per_image(c[rows], clean)
            best = torch.minimum(best, offset.flatten(1).square().sum(1) + c[rows] * loss)
            slope = tanh.square_().sub_(1).mul_(-0.5)
            gradient = gradient.mul_(weight).add_(offset, alpha=2).mul_(slope)
            first.lerp_(gradient, 0.1)
            second.lerp_(gradient.square(), 0.001)
            root = (second / (1 - 0.999**number)).sqrt_().add_(1e-8)
            place = place.addcdiv(first, root, value=-self.lr / (1 - 0.9**number))
            if self.abort_early and number % max(self.steps // 10, 1) == 0:
                left = best < 0.9999 * checked
                checked = best
                if not left.all():
                    rows, clean, place, best = rows[left], clean[left], place[left], best[left]
                    first, second, checked = first[left], second[left], checked[left]
                if not len(rows):
                    break
        return fooled
