"""One batch under attack: every forward pass goes through it, and so is counted, checked and judged."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from muquant.attacks.goal import Goal
from muquant.attacks.losses import Loss
from muquant.attacks.norms import TOLERANCE, Ball, Threat, size
from muquant.attacks.target import Target
from muquant.base.errors import InputError, first_line

Keep = Literal["first", "last", "smallest"]
"""Which of an image's successful iterates is kept."""

LossFunction = Callable[[Tensor, Tensor], Tensor]
"""(logits [M, classes], rows [M]) -> loss [M]"""


class AttackProblem:
    """The correctly classified images of a batch, and the best adversarial image found for each so far.

    An attack calls `logits` and `gradient` with its iterates; any that is fooled inside the threat is
    kept without further ado. `rows` are the places in the batch to which the given images belong.

    Attributes:
        clean: float32 [N, ...].
        goal: what they are, and what they are to be taken for.
        threat: the ball.
        generator: the batch's only source of randomness, on the CPU.
        best: [N, ...], the clean image where nothing has been found.
        fooled: bool [N].
        proposed: bool [N], whether `best` is an image that nobody has judged.
        queries: int64 [N], forward passes of each image.
    """

    def __init__(
        self,
        target: Target,
        clean: Tensor,
        goal: Goal,
        threat: Threat,
        generator: torch.Generator,
        *,
        keep: Keep,
        confidence: float = 0.0,
        opening: "Opening | None" = None,
    ) -> None:
        self.target, self.clean, self.goal = target, clean, goal
        self.threat, self.generator = threat, generator
        self.keep, self.confidence = keep, confidence
        self.best = clean.clone()
        self.fooled = torch.zeros(len(clean), dtype=torch.bool, device=clean.device)
        self.proposed = self.fooled.clone()
        self.queries = torch.zeros(len(clean), dtype=torch.int64, device=clean.device)
        self._distance = torch.full((len(clean),), torch.inf, device=clean.device)
        self._opening = opening
        self._clean_logits = None if opening is None else goal.logits(opening.logits.detach()[opening.places])

    @property
    def labels(self) -> Tensor:
        """The true classes, int64 [N]."""
        return self.goal.labels

    @property
    def radius(self) -> float:
        """The threat's radius, for attacks that have one."""
        assert self.threat.radius is not None
        return self.threat.radius

    def ball(self, rows: Tensor) -> Ball:
        """The balls in which iterates of some rows must lie; around `clean` itself where these are all."""
        clean = self.clean if len(rows) == len(self.clean) else self.clean[rows]
        return Ball(clean, self.radius, self.threat.norm)

    def rows(self) -> Tensor:
        """All rows, int64 [N]."""
        return torch.arange(len(self.clean), device=self.clean.device)

    def alive(self) -> Tensor:
        """The rows that are not fooled yet, int64 [M]."""
        return (~self.fooled).nonzero()[:, 0]

    def uniform(self, *shape: int) -> Tensor:
        """Values drawn from [0, 1), on the batch's device."""
        return torch.rand(shape, generator=self.generator).to(self.clean.device)

    def normal(self, *shape: int) -> Tensor:
        """Standard normal values, on the batch's device."""
        return torch.randn(shape, generator=self.generator).to(self.clean.device)

    def signs(self, *shape: int) -> Tensor:
        """Values -1 or 1, on the batch's device."""
        return (self.uniform(*shape) < 0.5).float() * 2 - 1

    def clean_logits(self) -> Tensor:
        """Logits [N, classes] of the clean images; a query where nobody has made it yet."""
        if self._clean_logits is None:
            self._clean_logits = self.logits(self.clean, self.rows())
        return self._clean_logits

    def rivals(self) -> Tensor:
        """The classes to go for: the one aimed at, int64 [N, 1], or all others, int64 [N, classes - 1].

        These come by falling logit of the clean image.
        """
        if self.goal.target_classes is not None:
            return self.goal.target_classes[:, None]
        others = self.clean_logits().scatter(1, self.labels[:, None], -torch.inf)
        return others.argsort(dim=1, descending=True)[:, :-1]

    def propose(self, inputs: Tensor, rows: Tensor) -> None:
        """Take the last iterates [M, ...] of images that are not fooled; their verification judges them."""
        self.best[rows], self.proposed[rows] = inputs, True

    def logits(self, inputs: Tensor, rows: Tensor) -> Tensor:
        """Logits [M, classes] of iterates [M, ...]; one query each, and successes are kept."""
        self.queries[rows] += 1
        with torch.no_grad():
            output = self.ask(inputs, rows)
            self._record(inputs, rows, output)
        return output

    def ask(self, inputs: Tensor, rows: Tensor) -> Tensor:
        """Logits [M, classes] of images [M, ...], not counted as a query; nothing is kept."""
        return self.goal.at(rows).logits(checked_logits(self.target, inputs))

    def objective(self, loss: Loss) -> LossFunction:
        """What an attack on a loss raises: the label's, or less that of the class aimed at."""
        return lambda logits, rows: self.goal.at(rows).objective(loss, logits)

    def gradient(self, inputs: Tensor, rows: Tensor, loss: LossFunction) -> tuple[Tensor, Tensor, Tensor]:
        """Logits [M, classes], loss [M] and its gradient [M, ...] at iterates [M, ...]; one query each.

        A gradient that is not finite is replaced by zero. The first one at `clean` itself takes no query: the
        pass that has been made over these images serves for it.
        """
        with torch.enable_grad():
            leaf, places, output = self._pass(inputs, rows)
            losses = loss(output, rows)
            gradient = differentiate(losses.sum(), leaf)
        output = output.detach()
        self._record(inputs.detach(), rows, output)
        return output, losses.detach(), gradient[places].nan_to_num(0, 0, 0)

    def reached(self, logits: Tensor, rows: Tensor) -> Tensor:
        """Whether each iterate is taken for what it should be, by the confidence asked."""
        return self.goal.at(rows).reached(logits, self.confidence)

    def _pass(self, inputs: Tensor, rows: Tensor) -> tuple[Tensor, Tensor | slice, Tensor]:
        """A pass with its graph: its leaf, where iterates [M, ...] lie in that, their logits [M, classes]."""
        opening, self._opening = self._opening, None  # a graph is large: this one is used now or never
        if opening is not None and opening.target is self.target and inputs is self.clean:
            return opening.images, opening.places, self.goal.logits(opening.logits[opening.places])
        opening = None
        self.queries[rows] += 1
        leaf = inputs.detach().requires_grad_()
        return leaf, slice(None), self.goal.at(rows).logits(traced_logits(self.target, leaf))

    def _record(self, inputs: Tensor, rows: Tensor, logits: Tensor) -> None:
        wrong = self.reached(logits, rows)
        if self.keep == "first":
            wrong &= ~self.fooled[rows]
        found = wrong.nonzero()[:, 0]
        if not len(found):
            return
        candidates, places = inputs[found], rows[found]
        distance = size(candidates - self.clean[places], self.threat.norm)
        good = inside(candidates, distance, self.threat)
        if self.keep == "smallest":
            good &= distance < self._distance[places]
        places = places[good]
        self.best[places] = candidates[good]
        self._distance[places] = distance[good]
        self.fooled[places] = True


@dataclass(frozen=True, eq=False)
class Opening:
    """The pass over all images of a batch that told which ones to attack.

    Attributes:
        target: whose it was.
        images: [B, ...].
        logits: the target's outputs [B, classes], or one more; with their graph where gradients are needed.
        places: int64 [N], of the images that are attacked.
    """

    target: Target
    images: Tensor
    logits: Tensor
    places: Tensor


def inside(inputs: Tensor, distance: Tensor, threat: Threat) -> Tensor:
    """Whether each image is finite, in [0, 1] and at a distance that the threat allows."""
    flat = inputs.flatten(1)
    good = (flat.amin(1) >= 0) & (flat.amax(1) <= 1)  # false for NaN; aminmax takes five times as long
    return good if threat.radius is None else good & (distance <= threat.radius + TOLERANCE)


def checked_logits(target: Target, inputs: Tensor) -> Tensor:
    """The target's logits in float32.

    Raises:
        InputError: they are not [N, classes] with at least two classes, or not finite.
    """
    output = target.logits(inputs)
    if output.dim() != 2 or len(output) != len(inputs) or output.shape[1] < 2:
        raise InputError(
            f"the model's output: expected logits [{len(inputs)}, classes] with 2 or more classes, "
            f"found {list(output.shape)}; attack a classifier"
        )
    output = output.float()
    if not torch.isfinite(output).all():
        rows = int((~torch.isfinite(output)).any(1).sum())
        raise InputError(
            f"the model's output: expected finite logits, found NaN or infinity for {rows} of {len(output)} "
            "images; check the model"
        )
    return output


def traced_logits(target: Target, leaf: Tensor) -> Tensor:
    """The target's logits in float32 with their graph, for inputs of which gradients are wanted.

    Raises:
        InputError: as for `checked_logits`; the target does not take the inputs, or not while their gradients
            are wanted.
    """
    try:
        return checked_logits(target, leaf)
    except InputError:
        raise
    except Exception as error:  # whatever a module raises
        with torch.no_grad(), naming_shape(leaf):
            checked_logits(target, leaf.detach())
        raise _no_gradient(first_line(error)) from error


def differentiate(value: Tensor, leaf: Tensor) -> Tensor:
    """The gradient of a value by inputs.

    Raises:
        InputError: there is none.
    """
    gradient = None
    if value.requires_grad:
        try:
            (gradient,) = torch.autograd.grad(value, leaf, allow_unused=True)
        except Exception as error:  # whatever an operation of a module raises
            raise _no_gradient(first_line(error)) from error
    if gradient is None:
        raise _no_gradient("it does not depend on that by differentiable operations")
    return gradient


def _no_gradient(reason: str) -> InputError:
    return InputError(
        f"the model's output has no gradient by its input: {reason}; mend the model, or use what needs no "
        "gradients: Square, or the exported file alone (bench --runtime onnx)"
    )


@contextmanager
def naming_shape(inputs: Tensor) -> Iterator[None]:
    """Say of what shape the inputs were where a target does not take them.

    Raises:
        InputError: whatever else the target raised.
    """
    try:
        yield
    except InputError:
        raise
    except Exception as error:  # whatever a module or a runtime raises
        raise InputError(
            f"the model does not take images of shape {list(inputs.shape[1:])}: {first_line(error)}; "
            "give images of the data that it was made for"
        ) from error
