"""What all attacks share: validation, batches, seeds, verification of every example."""

import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import torch
from numpy.typing import ArrayLike
from torch import Tensor

from muquant.attacks.goal import Goal
from muquant.attacks.inputs import InputSpace, read_images, read_target_classes
from muquant.attacks.norms import Norm, Threat, copy_rows, parse_epsilon, per_image, project, size
from muquant.attacks.problem import (
    AttackProblem,
    Keep,
    Opening,
    checked_logits,
    inside,
    naming_shape,
    traced_logits,
)
from muquant.attacks.result import AttackResult
from muquant.attacks.target import UNIT, Target, abstains
from muquant.base.errors import InputError
from muquant.base.progress import OnProgress
from muquant.base.seeds import generator_for

BATCH_SIZE = 100
"""The unit of work and of the seed. 64 to 128 images fit the cache of a CPU best."""

PUSHES = (1.0, 1.001, 1.01)
"""By what verification lengthens a perturbation that ends at the boundary, where rounding decides."""


class Attack(ABC):
    """An attack with its parameters: a frozen dataclass whose `run` looks for adversarial images.

    Class attributes:
        needs_gradients: it refuses a target that has none.
        corruption: it is no search for a worst case, aims at no class, and is reported apart.
    """

    needs_gradients: ClassVar[bool] = False
    corruption: ClassVar[bool] = False

    @property
    @abstractmethod
    def threat(self) -> Threat:
        """The ball in which adversarial images must lie."""

    @property
    def keep(self) -> Keep:
        """Which successful iterate of an image is kept."""
        return "first"

    @property
    def confidence(self) -> float:
        """By how much the wrong logit must exceed that of the label."""
        return 0.0

    @abstractmethod
    def run(self, problem: AttackProblem) -> None:
        """Show iterates to `problem.logits` or `problem.gradient`, which keep those that succeed.

        The last ones go to `problem.propose` where nothing depends on what the target says of them.
        """

    def examples(self, problem: AttackProblem) -> Iterator[Tensor]:
        """Images [N, ...] for another model, whether they fool this one or not, in one or several goes."""
        self.run(problem)
        yield problem.best

    def attack(
        self,
        target: Target,
        inputs: Tensor | ArrayLike,
        labels: Tensor | ArrayLike,
        *,
        target_classes: Tensor | ArrayLike | None = None,
        seed: int = 0,
        on_progress: OnProgress | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> AttackResult:
        """Attack every correctly classified image.

        Args:
            target: what is attacked.
            inputs: [N, ...] within the bounds of the target, [0, 1] where it states none.
            labels: integers [N], the true classes.
            target_classes: integers [N], or one for all: what the images should be taken for, and an attack
                succeeds where they are. None where any class but the label will do.
            seed: of all randomness; what happens to a batch depends on (seed, number of the batch) alone.
            on_progress: called with images done and images in all after each batch.
            batch_size: images at a time; another size is another result for attacks that draw numbers.

        Raises:
            InputError: the inputs, the labels, the parameters or the target cannot be used.
        """
        inputs, labels = read_images(inputs, labels)
        aimed = read_target_classes(target_classes, labels)
        _ = space_of(target).unscaled(inputs)  # refuse what lies outside before any work is done
        if batch_size < 1:
            raise InputError(f"batch_size: expected at least 1, found {batch_size}")
        parts = []
        for number, start in enumerate(range(0, len(inputs), batch_size)):
            rows = slice(start, start + batch_size)
            goals = None if aimed is None else aimed[rows]
            parts.append(
                self.attack_batch(
                    target, inputs[rows], labels[rows], target_classes=goals, seed=seed, number=number
                )
            )
            if on_progress is not None:
                on_progress(min(start + batch_size, len(inputs)), len(inputs))
        return AttackResult.join(parts)

    def attack_batch(
        self,
        target: Target,
        inputs: Tensor | ArrayLike,
        labels: Tensor | ArrayLike,
        *,
        target_classes: Tensor | ArrayLike | None = None,
        seed: int = 0,
        number: int = 0,
    ) -> AttackResult:
        """Attack batch `number` of those of `attack`: several processes share the batches out by it."""
        inputs, labels = read_images(inputs, labels)
        goal = Goal(labels, read_target_classes(target_classes, labels), abstains(target))
        space = space_of(target)
        images = space.unscaled(inputs)
        self.threat.fit(images)
        if self.needs_gradients and not target.differentiable:
            raise InputError(
                f"{type(self).__name__} needs gradients, which the target does not have; attack the PyTorch "
                f"model, or use an attack that needs none, such as Square"
            )
        begin = time.perf_counter()
        with target.ready():
            clean = images.detach().to(target.device, torch.float32)
            goal = (goal.unaimed if self.corruption else goal).to(target.device)
            opening = _opened(target, clean, goal, gradients=self.needs_gradients)
            places = opening.places
            problem = AttackProblem(
                target,
                clean.index_select(0, places),
                goal.at(places),
                self.threat,
                generator_for(seed, "attack", number),
                keep=self.keep,
                confidence=self.confidence,
                opening=opening,
            )
            del opening  # which the problem lets go of in time
            if len(places):
                self.run(problem)
            _verify(problem)
        adversarial = clean.index_copy(0, places, problem.best)
        attacked, success = (torch.zeros_like(goal.labels, dtype=torch.bool) for _ in range(2))
        attacked[places], success[places] = True, problem.fooled
        queries = torch.ones_like(goal.labels).index_add_(0, places, problem.queries)
        difference = adversarial - clean
        if space.bounded:
            given = inputs.detach().to(adversarial)
            adversarial = torch.where(per_image(success, given), space.scaled(adversarial), given)
        return AttackResult(
            adversarial.cpu(),
            attacked.cpu(),
            success.cpu(),
            queries.cpu(),
            size(difference, "l2").cpu(),
            size(difference, "linf").cpu(),
            size(difference, "l1").cpu(),
            time.perf_counter() - begin,
        )

    def _check_at_least(self, least: float, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if not value >= least:
                raise InputError(
                    f"{type(self).__name__}.{name}: expected at least {least:g}, found {value!r}"
                )


@dataclass(frozen=True, kw_only=True)
class BallAttack(Attack):
    """An attack inside a ball of given radius.

    Attributes:
        epsilon: radius, a number or text such as "8/255"; 0..1 for "linf".
        norm: "linf", "l2" or "l1".
    """

    epsilon: float | str
    norm: Norm = "linf"

    def __post_init__(self) -> None:
        _ = self.threat  # raises where epsilon or norm cannot be used

    @property
    def threat(self) -> Threat:
        """The ball of radius epsilon."""
        return Threat(self.norm, parse_epsilon(self.epsilon))


@dataclass(frozen=True, kw_only=True)
class DistanceAttack(Attack):
    """An attack that looks for the closest adversarial image, in L2 unless it says otherwise.

    Attributes:
        epsilon: the distance within which a success counts; None for any.
    """

    epsilon: float | str | None = None

    @property
    def threat(self) -> Threat:
        """The L2 ball of radius epsilon, or all of it."""
        return Threat("l2", None if self.epsilon is None else parse_epsilon(self.epsilon))

    @property
    def keep(self) -> Keep:
        """The closest."""
        return "smallest"


def space_of(target: Target) -> InputSpace:
    """The inputs that a target takes; in [0, 1] where it does not say."""
    space: InputSpace = getattr(target, "space", UNIT)
    return space


def _opened(target: Target, clean: Tensor, goal: Goal, *, gradients: bool) -> Opening:
    """Find out which images are to be attacked, and keep the graph of that pass if it may serve again."""
    images = clean.detach().requires_grad_(gradients)
    with torch.set_grad_enabled(gradients), naming_shape(images):
        logits = traced_logits(target, images) if gradients else checked_logits(target, images)
    classes = logits.shape[1] - goal.abstains
    if classes < 2:
        raise InputError(
            f"the model's output: expected 2 classes or more, and the last output that abstains, found "
            f"{logits.shape[1]} outputs; leave abstains out"
        )
    for name, given in (("labels", goal.labels), ("target_classes", goal.target_classes)):
        if given is not None and int(given.max()) >= classes:
            raise InputError(
                f"{name}: expected 0 to {classes - 1}, the model's classes, found {int(given.max())}"
            )
    return Opening(target, images, logits, places=goal.right(logits).nonzero()[:, 0])


def _verify(problem: AttackProblem) -> None:
    """Show the images found to the target once more; what does not stand becomes the clean image again."""
    stood = torch.zeros_like(problem.fooled)
    pending = (problem.fooled | problem.proposed).nonzero()[:, 0]
    for push in PUSHES:
        if not len(pending):
            break
        clean, images = problem.clean[pending], problem.best[pending]
        if push > 1:
            limit = torch.inf if problem.threat.radius is None else problem.threat.radius
            images = project(clean + push * (images - clean), clean, limit, problem.threat.norm)
            problem.best[pending] = images
        problem.queries[pending] += 1
        with torch.no_grad():
            there = problem.reached(problem.ask(images, pending), pending)
        good = there & inside(images, size((images - clean).double(), problem.threat.norm), problem.threat)
        stood[pending[good]] = True
        pending = pending[~good & problem.fooled[pending]]
    copy_rows((~stood).nonzero()[:, 0], problem.clean, problem.best)
    problem.fooled = stood
