"""What a run draws its batches from: the training part, and images that its method has added."""

from collections.abc import Mapping

import torch
from torch import Tensor

from muquant.base.seeds import generator_for
from muquant.data import Dataset

_PREFIX = "examples."


class TrainingSet:
    """The training part and added images. An epoch is as long as the training part alone makes it.

    Args:
        part: the training part.
        batch_size: images a step; what is left over at the end of an epoch is not used in it.
        seed: of the order.

    Attributes:
        part: the training part.
        added: further images of the same classes; None where there are none.
        steps_per_epoch: whole batches in the training part, at least 1.
    """

    def __init__(self, part: Dataset, batch_size: int, seed: int) -> None:
        self.part = part
        self.added: Dataset | None = None
        self.steps_per_epoch = max(1, len(part) // batch_size)
        self._batch_size, self._seed = batch_size, seed
        self._order = torch.empty(0, dtype=torch.int64)
        self._order_of = (-1, -1)

    def __len__(self) -> int:
        return len(self.part) + (0 if self.added is None else len(self.added))

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Images [N, C, H, W] in [0, 1] and labels [N] of a step."""
        return self._look_up(self.indices(step))

    def indices(self, step: int) -> Tensor:
        """The numbers of a step's images, added ones last: a slice of the epoch's own permutation."""
        epoch, place = divmod(step, self.steps_per_epoch)
        if self._order_of != (epoch, len(self)):
            self._order = torch.randperm(len(self), generator=generator_for(self._seed, "order", epoch))
            self._order_of = (epoch, len(self))
        start = place * self._batch_size
        return self._order[start : start + self._batch_size]

    def tensors(self) -> dict[str, Tensor]:
        """The added images, for a checkpoint."""
        if self.added is None:
            return {}
        return {f"{_PREFIX}images": self.added.images, f"{_PREFIX}labels": self.added.labels}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """Add the images that a checkpoint with these tensors holds, if any.

        Raises:
            InputError: they are no images of these classes.
        """
        images, labels = (tensors.get(f"{_PREFIX}{name}") for name in ("images", "labels"))
        if images is not None and labels is not None:
            self.added = Dataset(self.part.name, "train", images, labels, self.part.classes)

    def _look_up(self, indices: Tensor) -> tuple[Tensor, Tensor]:
        if self.added is None:
            return self.part.inputs(indices), self.part.labels[indices]
        added = indices >= len(self.part)
        own, others = indices[~added], indices[added] - len(self.part)
        inputs = torch.cat((self.part.inputs(own), self.added.inputs(others)))
        return inputs, torch.cat((self.part.labels[own], self.added.labels[others]))
