"""Decoupled direction and norm: the smallest L2 perturbation in few steps (Rony et al. 2019, algorithm 1)."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch

from muquant.attacks.base import DistanceAttack
from muquant.attacks.losses import ce
from muquant.attacks.norms import per_image, size
from muquant.attacks.problem import AttackProblem


@dataclass(frozen=True, kw_only=True)
class DDN(DistanceAttack):
    """Follow the gradient of the cross-entropy on a sphere that shrinks at a success and grows at a failure.

    Attributes:
        epsilon: the L2 distance within which a success counts; None for any.
        steps: at least 1.
        first_norm: radius of the first sphere, in L2.
        gamma: relative change of the radius at a step, 0..1 (exclusive).
        first_step: length of the first step in L2; it falls to a hundredth along a cosine.
    """

    needs_gradients: ClassVar[bool] = True

    steps: int = 100
    first_norm: float = 1.0
    gamma: float = 0.05
    first_step: float = 1.0

    def __post_init__(self) -> None:
        _ = self.threat
        self._check_at_least(1, "steps")
        self._check_at_least(1e-6, "first_norm", "gamma", "first_step")

    def run(self, problem: AttackProblem) -> None:
        """Take all steps for all images: one that is fooled already may be fooled from closer by."""
        rows, clean = problem.rows(), problem.clean
        inputs = clean
        norm = torch.full((len(clean),), self.first_norm, device=clean.device)
        for number in range(self.steps):
            logits, _, gradient = problem.gradient(inputs, rows, problem.objective(ce))
            length = size(gradient, "l2")
            if not length.all():
                flat = length == 0
                gradient[flat] = problem.normal(*gradient.shape)[flat]
                length = size(gradient, "l2")
            if number:
                wrong = problem.reached(logits, rows)
                norm = norm * torch.where(wrong, 1 - self.gamma, 1 + self.gamma)
            cosine = 0.01 + 0.99 * (1 + math.cos(math.pi * number / self.steps)) / 2
            step = (self.first_step * cosine) / length.clamp(min=1e-12)
            offset = (inputs - clean).addcmul_(gradient, per_image(step, gradient))
            offset.mul_(per_image(norm / size(offset, "l2").clamp(min=1e-12), offset))
            inputs = offset.add_(clean).clamp_(0, 1)
        problem.logits(inputs, rows)
