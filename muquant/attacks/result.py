"""What an attack did, image by image."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from muquant.attacks.norms import Norm

BY_IMAGE = ("adversarial", "attacked", "success", "queries", "l2", "linf", "l1")
"""The fields of a result that have a value for each image."""


@dataclass(frozen=True)
class AttackResult:
    """What an attack did to N images; tensors are on the CPU.

    Attributes:
        adversarial: float32 [N, ...] within the bounds of the inputs; the clean image wherever the attack did
            not succeed.
        attacked: bool [N], the clean image was classified correctly, and is one of those that were to be
            attacked; others are left alone.
        success: bool [N], attacked, and the adversarial image lies inside the threat and is misclassified;
            where a class was aimed at, it is taken for that. `Goal` has the rule.
        queries: int64 [N], forward passes, those of the clean image and of the verification included.
        l2: float32 [N], L2 distance to the clean image, in units of the range of the inputs; 0 without
            success.
        linf: float32 [N], Linf distance likewise.
        l1: float32 [N], L1 distance likewise.
        seconds: wall time.
    """

    adversarial: Tensor
    attacked: Tensor
    success: Tensor
    queries: Tensor
    l2: Tensor
    linf: Tensor
    l1: Tensor
    seconds: float

    @property
    def accuracy(self) -> float:
        """The fraction of the N images that is classified correctly and withstood the attack, 0..1.

        Where a class was aimed at, an image withstood whatever else it is taken for.
        """
        return int((self.attacked & ~self.success).sum()) / len(self.success)

    def distance(self, norm: Norm) -> Tensor:
        """The distance to the clean image in a norm, float32 [N]."""
        return {"linf": self.linf, "l2": self.l2, "l1": self.l1}[norm]

    @classmethod
    def of_none(cls, inputs: Tensor) -> Self:
        """What comes of inputs [N, ...] that are all left alone."""
        count = len(inputs)
        no, zero = torch.zeros(count, dtype=torch.bool), torch.zeros(count)
        return cls(inputs, no, no, torch.zeros(count, dtype=torch.int64), zero, zero, zero, 0.0)

    def among(self, inputs: Tensor, rows: Tensor) -> Self:
        """The same result as one on more inputs [N, ...], of which only `rows`, int64 [M], were attacked."""
        whole = self.of_none(inputs)
        spread = {name: getattr(whole, name).index_copy(0, rows, getattr(self, name)) for name in BY_IMAGE}
        return replace(self, **spread)

    def at(self, rows: Tensor) -> Self:
        """The result on some of the images alone, int64 [M]."""
        return replace(self, **{name: getattr(self, name)[rows] for name in BY_IMAGE})

    @classmethod
    def join(cls, parts: Sequence["AttackResult"]) -> Self:
        """Put the results of batches together, in their order."""
        tensors = {name: torch.cat([getattr(part, name) for part in parts]) for name in BY_IMAGE}
        return cls(**tensors, seconds=sum(part.seconds for part in parts))
