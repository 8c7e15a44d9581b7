"""Calls shaped as people know them: `AutoAttack`, and Foolbox's attack at several epsilons.

adversary = AutoAttack(module, norm="Linf", eps=8 / 255)
adversarial = adversary.run_standard_evaluation(images, labels, bs=100)
_, clipped, is_adversarial = at_epsilons(PGD, module, images, labels, epsilons=[2 / 255, 8 / 255])
"""

from collections.abc import Sequence
from typing import Any

import torch
from numpy.typing import ArrayLike
from torch import Tensor, nn

from muquant.attacks import BallAttack, Norm, Target, TorchTarget
from muquant.attacks.base import BATCH_SIZE
from muquant.attacks.inputs import read_images
from muquant.base.errors import InputError
from muquant.base.registry import look_up
from muquant.robustness.suites import standard_version

NORMS: dict[str, Norm] = {"Linf": "linf", "L2": "l2", "L1": "l1"}
"""AutoAttack's names of norms."""


class AutoAttack:
    """AutoAttack's standard version under the names of its own class (Croce, Hein 2020).

    Args:
        model: a module, attacked in evaluation mode, or any `Target` with gradients.
        norm: "Linf", "L2" or "L1".
        eps: radius, a number or text such as "8/255".
        seed: of all randomness.
        version: "standard", the only one that there is here.

    Attributes:
        robust_accuracy: name -> the share of images left, 0..1, "clean" and after each attack of the last
            evaluation.

    Raises:
        InputError: norm, radius or version cannot be used.
    """

    def __init__(
        self,
        model: nn.Module | Target,
        norm: str = "Linf",
        eps: float | str = 0.3,
        seed: int = 0,
        version: str = "standard",
    ) -> None:
        if version != "standard":
            raise InputError(
                f'version: expected "standard", found {version!r}; run other attacks one by one, see ATTACKS'
            )
        self.target, self.seed = as_target(model), seed
        self.attacks = standard_version(eps, look_up("norm", norm, NORMS))
        self.robust_accuracy: dict[str, float] = {}

    def run_standard_evaluation(
        self, x_orig: Tensor | ArrayLike, y_orig: Tensor | ArrayLike, bs: int = BATCH_SIZE
    ) -> Tensor:
        """Attack every image until one of the four attacks fools it.

        Args:
            x_orig: [N, ...] in [0, 1], or within the bounds of the target.
            y_orig: integers [N], the true classes.
            bs: images at a time.

        Returns:
            Adversarial images float32 [N, ...]; the clean one wherever nothing was found, and wherever the
            model is wrong anyway.

        Raises:
            InputError: the images, the labels or the model cannot be used.
        """
        images, labels = read_images(x_orig, y_orig)
        adversarial, left = images.detach().cpu().float().clone(), torch.arange(len(labels))
        self.robust_accuracy = {}
        for each in self.attacks:
            if len(left):
                found = each.attack.attack(
                    self.target, images[left], labels[left], seed=self.seed, batch_size=bs
                )
                adversarial[left[found.success]] = found.adversarial[found.success]
                self.robust_accuracy.setdefault("clean", int(found.attacked.sum()) / len(labels))
                left = left[found.attacked & ~found.success]
            self.robust_accuracy[each.name] = len(left) / len(labels)
        return adversarial


def at_epsilons(
    kind: type[BallAttack],
    model: nn.Module | Target,
    inputs: Tensor | ArrayLike,
    criterion: Tensor | ArrayLike,
    *,
    epsilons: Sequence[float | str],
    target_classes: Tensor | ArrayLike | None = None,
    seed: int = 0,
    **parameters: Any,
) -> tuple[list[Tensor], list[Tensor], Tensor]:
    """Run an attack at several radii, and return what Foolbox's attacks return.

    Args:
        kind: such as `PGD`.
        model: a module, attacked in evaluation mode, or any `Target`.
        inputs: [N, ...] in [0, 1], or within the bounds of the target.
        criterion: integers [N], the true classes.
        epsilons: K radii, numbers or texts such as "8/255".
        target_classes: integers [N], or one for all: what the images should be taken for, as in Foolbox's
            `TargetedMisclassification`; None where any class but the label will do.
        seed: of all randomness.
        parameters: of the attack, but for epsilon.

    Returns:
        The images [N, ...] of each radius twice, since none is ever outside of its ball; and bool [K, N],
        whether each is misclassified, those that the model misclassifies anyway among them; or whether each
        that the model classified rightly is taken for its target class.

    Raises:
        InputError: the inputs, the labels, the parameters or the model cannot be used.
    """
    if not epsilons:
        raise InputError("epsilons: expected one radius or more, found none")
    target = as_target(model)
    found = [
        kind(epsilon=each, **parameters).attack(
            target, inputs, criterion, target_classes=target_classes, seed=seed
        )
        for each in epsilons
    ]
    images = [result.adversarial for result in found]
    free = target_classes is None
    fooled = [result.success | ~result.attacked if free else result.success for result in found]
    return images, list(images), torch.stack(fooled)


def as_target(model: nn.Module | Target) -> Target:
    """A module as a target, and a target as it is."""
    return TorchTarget(model) if isinstance(model, nn.Module) else model
