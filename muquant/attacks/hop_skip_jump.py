"""HopSkipJump: walk along the decision boundary by labels alone (Chen, Jordan, Wainwright 2020)."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from muquant.attacks.base import DistanceAttack
from muquant.attacks.norms import Norm, Threat, parse_epsilon, per_image, size, steepest, unit
from muquant.attacks.problem import AttackProblem
from muquant.base.errors import InputError


@dataclass(frozen=True, kw_only=True)
class HopSkipJump(DistanceAttack):
    """Estimate the boundary's normal from labels, jump along it, and bisect back to the boundary.

    Attributes:
        epsilon: the distance within which a success counts, and at which an image is done; None for any.
        norm: "l2" or "linf", whose distance is made small.
        iterations: jumps, at least 1.
        first_queries: for the first estimate of the normal, at least 1; the t-th takes sqrt(t) times as many.
        most_queries: for one estimate, at least 1.
        draws: random images tried to find one of another class to begin with, at least 1.
    """

    norm: Norm = "l2"
    iterations: int = 40
    first_queries: int = 100
    most_queries: int = 10_000
    draws: int = 100

    def __post_init__(self) -> None:
        _ = self.threat
        if self.norm == "l1":
            raise InputError("HopSkipJump.norm: expected l2 or linf, found l1; Square knows l1")
        self._check_at_least(1, "iterations", "first_queries", "most_queries", "draws")

    @property
    def threat(self) -> Threat:
        """The ball of radius epsilon, or all of it."""
        return Threat(self.norm, None if self.epsilon is None else parse_epsilon(self.epsilon))

    def run(self, problem: AttackProblem) -> None:
        """Begin at random images that fool, then jump.

        Where there is none, as is likely for a class that is aimed at, there is no attack.
        """
        rows, inputs = self._begin(problem)
        values = problem.clean[0].numel()
        theta = 1 / (values * math.sqrt(values)) if self.norm == "l2" else 1 / values**2
        for number in range(1, self.iterations + 1):
            if self.threat.radius is not None:
                left = ~problem.fooled[rows]
                rows, inputs = rows[left], inputs[left]
            if not len(rows):
                return
            clean = problem.clean[rows]
            before = size(inputs - clean, self.norm)
            inputs = self._bisect(problem, rows, inputs, theta)
            distance = size(inputs - clean, self.norm)
            scale = math.sqrt(values) if self.norm == "l2" else values
            radius = torch.full_like(before, 0.1) if number == 1 else scale * theta * before
            normal = self._normal(problem, rows, inputs, radius, number)
            inputs = self._jump(problem, rows, inputs, normal, distance / math.sqrt(number))
        if len(rows):
            self._bisect(problem, rows, inputs, theta)

    def _begin(self, problem: AttackProblem) -> tuple[Tensor, Tensor]:
        """The rows for which an image that fools was drawn, and these images."""
        found = torch.zeros(len(problem.clean), dtype=torch.bool, device=problem.clean.device)
        start = problem.clean.clone()
        for _ in range(self.draws):
            rows = (~found).nonzero()[:, 0]
            if not len(rows):
                break
            inputs = problem.uniform(len(rows), *start.shape[1:])
            wrong = problem.reached(problem.logits(inputs, rows), rows)
            start[rows[wrong]] = inputs[wrong]
            found[rows[wrong]] = True
        rows = found.nonzero()[:, 0]
        return rows, start[rows]

    def _bisect(self, problem: AttackProblem, rows: Tensor, inputs: Tensor, theta: float) -> Tensor:
        """Bring images that fool to the boundary, on the side of the wrong class."""
        clean, offset = problem.clean[rows], inputs - problem.clean[rows]
        high = torch.ones(len(rows), device=clean.device) if self.norm == "l2" else size(offset, "linf")
        low, best = torch.zeros_like(high), inputs
        tolerance = (theta * high).clamp(min=1e-7)
        for _ in range(30):
            if not ((high - low) > tolerance).any():
                break
            middle = (low + high) / 2
            share = per_image(middle, clean)
            step = share * offset if self.norm == "l2" else offset.clamp(-share, share)
            tried = (clean + step).clamp_(0, 1)
            wrong = problem.reached(problem.logits(tried, rows), rows)
            high, low = torch.where(wrong, middle, high), torch.where(wrong, low, middle)
            best = torch.where(per_image(wrong, clean), tried, best)
        return best

    def _normal(
        self, problem: AttackProblem, rows: Tensor, inputs: Tensor, radius: Tensor, number: int
    ) -> Tensor:
        """Equation 16: the mean of random directions, signed by where they lead, with a control variate."""
        count = min(int(self.first_queries * math.sqrt(number)), self.most_queries)
        signed, plain = torch.zeros_like(inputs), torch.zeros_like(inputs)
        mean = torch.zeros(len(rows), device=inputs.device)
        for _ in range(count):
            noise = (
                problem.normal(*inputs.shape) if self.norm == "l2" else problem.uniform(*inputs.shape) * 2 - 1
            )
            tried = (inputs + per_image(radius, inputs) * unit(noise)).clamp_(0, 1)
            direction = (tried - inputs) / per_image(radius, inputs).clamp(min=1e-12)
            sign = problem.reached(problem.logits(tried, rows), rows).float() * 2 - 1
            signed += per_image(sign, inputs) * direction
            plain += direction
            mean += sign / count
        centred = signed - per_image(mean, inputs) * plain
        one_sided = mean.abs() >= 1 - 1e-6
        return torch.where(per_image(one_sided, inputs), signed, centred)

    def _jump(
        self, problem: AttackProblem, rows: Tensor, inputs: Tensor, normal: Tensor, length: Tensor
    ) -> Tensor:
        """Step along the normal, half as far again and again until the image fools."""
        direction = steepest(normal, self.norm)
        jumped, pending = inputs.clone(), torch.arange(len(rows), device=inputs.device)
        for _ in range(20):
            if not len(pending):
                break
            tried = (inputs + per_image(length, inputs) * direction)[pending].clamp_(0, 1)
            wrong = problem.reached(problem.logits(tried, rows[pending]), rows[pending])
            jumped[pending[wrong]] = tried[wrong]
            pending = pending[~wrong]
            length = length / 2
        return jumped
