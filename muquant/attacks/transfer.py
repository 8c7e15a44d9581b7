"""Examples made on another model (Papernot et al. 2016)."""

from dataclasses import dataclass

from muquant.attacks.base import Attack
from muquant.attacks.gradient import GradientAttack
from muquant.attacks.norms import Threat
from muquant.attacks.problem import Problem
from muquant.attacks.target import Target
from muquant.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Transfer(Attack):
    """Run a gradient attack to its end on a surrogate, and show its last iterates to the target.

    Every step is taken, also after the surrogate is fooled, so that the examples go well past its boundary;
    those that do not fool the surrogate are shown as well.

    Attributes:
        surrogate: a differentiable model of the same classes; its queries are not counted.
        method: the attack on it, such as `BIM(epsilon=0.3)`.
    """

    surrogate: Target
    method: GradientAttack

    def __post_init__(self) -> None:
        if not self.surrogate.differentiable:
            raise InputError("Transfer: the surrogate has no gradients; give a PyTorch model")

    @property
    def threat(self) -> Threat:
        """The method's."""
        return self.method.threat

    def run(self, problem: Problem) -> None:
        """Attack the surrogate, once for each of the method's restarts."""
        device = self.surrogate.device
        with self.surrogate.ready():
            twin = Problem(
                self.surrogate,
                problem.clean.to(device),
                problem.labels.to(device),
                problem.threat,
                problem.generator,
                keep="last",
            )
            for _ in range(self.method.restarts):
                last = self.method.ascend(twin, drop=False).to(problem.clean.device)
                rows = problem.alive()
                if len(rows):
                    problem.logits(last[rows], rows)
