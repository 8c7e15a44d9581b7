"""Normal and uniform noise: corruptions, which say nothing about the worst case."""

from dataclasses import dataclass
from typing import ClassVar

from muquant.attacks.base import Attack, BallAttack
from muquant.attacks.norms import Norm, Threat, random_start
from muquant.attacks.problem import AttackProblem


@dataclass(frozen=True, kw_only=True)
class NormalNoise(Attack):
    """One draw of normal noise for each image, clipped to [0, 1].

    Attributes:
        sigma: standard deviation, in the unit of the inputs.
    """

    corruption: ClassVar[bool] = True

    sigma: float

    def __post_init__(self) -> None:
        self._check_at_least(0, "sigma")

    @property
    def threat(self) -> Threat:
        """Any distance."""
        norm: Norm = "l2"
        return Threat(norm, None)

    def run(self, problem: AttackProblem) -> None:
        """Draw once."""
        noise = self.sigma * problem.normal(*problem.clean.shape)
        problem.propose((problem.clean + noise).clamp_(0, 1), problem.rows())


@dataclass(frozen=True, kw_only=True)
class UniformNoise(BallAttack):
    """One draw for each image, uniform in the ball, clipped to [0, 1]."""

    corruption: ClassVar[bool] = True

    def run(self, problem: AttackProblem) -> None:
        """Draw once."""
        noisy = random_start(problem.clean, problem.radius, self.norm, problem.generator)
        problem.propose(noisy, problem.rows())
