"""Random points of the ball: what a search without any aim finds."""

from dataclasses import dataclass

import torch

from muquant.attacks.base import BallAttack
from muquant.attacks.norms import project, random_start, unit
from muquant.attacks.problem import AttackProblem


@dataclass(frozen=True, kw_only=True)
class RandomSearch(BallAttack):
    """Draw points in turn from the ball's inside and from its edge (corners in Linf, the sphere in L2).

    Where it finds what gradient attacks missed, those have failed (Carlini et al. 2019, section 4.3).

    Attributes:
        samples: points for each image, at least 1.
    """

    samples: int = 100

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_at_least(1, "samples")

    def run(self, problem: AttackProblem) -> None:
        """Draw until an image is fooled."""
        for number in range(self.samples):
            rows = problem.alive()
            if not len(rows):
                return
            clean = problem.clean[rows]
            if number % 2:
                inputs = random_start(clean, problem.radius, self.norm, problem.generator)
            else:
                noise = problem.normal(*clean.shape)
                edge = noise.sign() if self.norm == "linf" else unit(noise)
                inputs = project(clean + problem.radius * edge, clean, problem.radius, self.norm)
            problem.logits(inputs.to(torch.float32), rows)
