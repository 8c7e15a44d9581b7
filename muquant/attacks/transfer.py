"""Examples made on another model (Papernot et al. 2016)."""

from dataclasses import dataclass, replace

import torch

from muquant.attacks.base import Attack
from muquant.attacks.norms import Threat
from muquant.attacks.problem import AttackProblem, checked_logits, naming_shape
from muquant.attacks.target import Target, abstains
from muquant.base.errors import InputError, naming


@dataclass(frozen=True, kw_only=True)
class Transfer(Attack):
    """Run a white-box attack to its end on a surrogate, and show its images to the target.

    A gradient attack takes every step, also after the surrogate is fooled, so that its images go well past
    the surrogate's boundary; those that do not fool the surrogate are shown as well. An attack that looks for
    the smallest distance gives its closest image, or the clean one.

    Attributes:
        surrogate: a differentiable model of the same classes; its queries are not counted.
        method: the attack on it, such as `BIM(epsilon=0.3)`.
    """

    surrogate: Target
    method: Attack

    def __post_init__(self) -> None:
        if not self.surrogate.differentiable:
            raise InputError("Transfer: the surrogate has no gradients; give a PyTorch model")

    @property
    def threat(self) -> Threat:
        """The method's."""
        return self.method.threat

    def _check_classes(self, problem: AttackProblem) -> None:
        images = problem.clean[:1].to(self.surrogate.device)
        with torch.no_grad(), naming("Transfer: the surrogate"), naming_shape(images):
            classes = checked_logits(self.surrogate, images).shape[1] - abstains(self.surrogate)
        if int(problem.labels.max()) >= classes:
            raise InputError(
                f"Transfer: the surrogate has {classes} classes, and labels go up to "
                f"{int(problem.labels.max())}; give a surrogate of the same classes"
            )

    def run(self, problem: AttackProblem) -> None:
        """Attack the surrogate, and show what comes of it."""
        device = self.surrogate.device
        with self.surrogate.ready():
            self._check_classes(problem)
            twin = AttackProblem(
                self.surrogate,
                problem.clean.to(device),
                replace(problem.goal.to(device), abstains=abstains(self.surrogate)),
                problem.threat,
                problem.generator,
                keep=self.method.keep,
                confidence=self.method.confidence,
            )
            for images in self.method.examples(twin):
                rows = problem.alive()
                if len(rows):
                    problem.logits(images.to(problem.clean.device)[rows], rows)
