"""Whether a kept result can be believed: what its file says is held against the images and the target."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from muquant.attacks import Attack, AttackResult, Goal, Target
from muquant.attacks.base import space_of
from muquant.attacks.inputs import TOLERANCE
from muquant.attacks.losses import margin
from muquant.attacks.norms import Norm, size
from muquant.attacks.problem import inside
from muquant.base.errors import InputError
from muquant.robustness.subject import batched_logits

_NEAR = 1e-4
"""What rounding moves: a share of the largest logit, and of a distance."""
_NORMS: tuple[Norm, ...] = ("l2", "linf", "l1")


@dataclass(frozen=True, eq=False)
class Witness:
    """Knows the images and the target that results are about.

    Attributes:
        target: what was attacked.
        images: float32 [N, ...], the clean inputs, within the target's bounds.
        goal: their labels, and what they should be taken for.
    """

    target: Target
    images: Tensor
    goal: Goal

    def why_not(self, result: AttackResult, attack: Attack, rows: Tensor) -> str:
        """Say why `result` cannot be what `attack` did to `rows`, int64 [n]; "" where it may be.

        Its tensors have to fit the images. Every example must lie within the bounds of the inputs and inside
        the threat, at the distance that is stated; fool the target; and be
        the clean image wherever the attack did not succeed. Images count as attacked where the target
        classifies them rightly. Where rounding decides, and other batches round otherwise, it is believed.
        """
        images = self.images[rows]
        return (
            _of_tensors(result, images)
            or _of_examples(result, attack, self.target, images)
            or self._of_answers(result, self.goal.unaimed if attack.corruption else self.goal, rows)
        )

    @cached_property
    def _clean(self) -> tuple[Tensor, Tensor]:
        outputs, slack = _outputs(self.target, self.images)
        return margin(outputs, self.goal.labels), slack

    def _of_answers(self, result: AttackResult, goal: Goal, rows: Tensor) -> str:
        clean, slack = (part[rows] for part in self._clean)
        if bool((torch.where(result.attacked, clean, -clean) > slack).any()):
            return "the images that the model classifies rightly are others"
        success = result.success
        goal = goal.at(rows[success])
        outputs, slack = _outputs(self.target, result.adversarial[success])
        fooled = goal.objective(margin, goal.logits(outputs))
        return "an example does not fool the model" if bool((-fooled > slack).any()) else ""


def _of_tensors(result: AttackResult, images: Tensor) -> str:
    shape = images.shape[:1]
    kinds = {"attacked": torch.bool, "success": torch.bool, "queries": torch.int64}
    expected = {name: (dtype, shape) for name, dtype in kinds.items()}
    expected |= dict.fromkeys(_NORMS, (torch.float32, shape))
    expected["adversarial"] = (images.dtype, images.shape)
    for name, (dtype, wanted) in expected.items():
        found = getattr(result, name)
        if found.dtype != dtype or found.shape != wanted:
            return f"{name} is {found.dtype} {list(found.shape)}, expected {dtype} {list(wanted)}"
    if bool((result.queries < 0).any()) or not 0 <= result.seconds < float("inf"):
        return "queries or seconds are below 0, or no numbers"
    if bool((result.success & ~result.attacked).any()):
        return "an image was fooled that was not attacked"
    return ""


def _of_examples(result: AttackResult, attack: Attack, target: Target, images: Tensor) -> str:
    if not torch.equal(result.adversarial[~result.success], images[~result.success]):
        return "there is an example where the attack did not succeed"
    space = space_of(target)
    try:
        examples, clean = space.unscaled(result.adversarial), space.unscaled(images)
    except InputError:
        return "an example lies outside the bounds of the inputs"
    difference = examples.double() - clean.double()
    for norm in _NORMS:
        stated = getattr(result, norm).double()
        if not torch.allclose(stated, size(difference, norm), rtol=_NEAR, atol=TOLERANCE):  # nor is NaN
            return f"{norm} is not the distance of the examples"
    distance = size(difference, attack.threat.norm) - (TOLERANCE if space.bounded else 0)
    if not bool(inside(examples, distance, attack.threat).all()):
        return "an example lies outside the threat"
    return ""


def _outputs(target: Target, images: Tensor) -> tuple[Tensor, Tensor]:
    """A target's outputs for inputs [N, ...], and what rounding may move of a difference of them, [N]."""
    if not len(images):
        return torch.zeros(0, 2), torch.zeros(0)
    with target.ready(), torch.no_grad():
        logits = batched_logits(target, space_of(target).unscaled(images).float())
    return logits, _NEAR * logits.abs().amax(1)
