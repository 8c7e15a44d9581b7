"""`FeedbackRound`: the examples of a round, and what was learned about the classes on the way."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from muquant.base.errors import InputError
from muquant.data import Dataset
from muquant.training.feedback.levels import LEVELS


@dataclass(frozen=True, eq=False)
class FeedbackRound:
    """What `generate` makes; tensors are on the CPU, those of the N examples in the order of the classes.

    Attributes:
        number: of the round, as it was given.
        images: uint8 [N, C, H, W], as in a `Dataset`. N is 0 where no label ever changes.
        labels: int64 [N], the labels of the seed samples.
        sources: int64 [N], the places of the seed samples in the data set.
        margins: float32 [N], L2, of the seed sample in the direction of the example.
        factors: float32 [N], the example lies at so many times the margin.
        class_margins: float32 [classes], L2, the median of the smallest margins of a class' samples; infinite
            where most of them have none, 0 where no sample is classified correctly.
        levels: of `LEVELS`, one for each class.
        forwards: images that the model was shown.
    """

    number: int
    images: Tensor
    labels: Tensor
    sources: Tensor
    margins: Tensor
    factors: Tensor
    class_margins: Tensor
    levels: tuple[str, ...]
    forwards: int

    def __len__(self) -> int:
        return len(self.labels)

    def extend(self, dataset: Dataset) -> Dataset:
        """The data set with the examples behind its own images."""
        return Dataset(
            dataset.name,
            dataset.split,
            torch.cat([dataset.images, self.images]),
            torch.cat([dataset.labels, self.labels]),
            dataset.classes,
        )

    def tensors(self) -> dict[str, Tensor]:
        """Everything as tensors by name, for a checkpoint; `from_tensors` turns them back."""
        tensors = {name: getattr(self, name) for name in _TENSORS}
        tensors["levels"] = torch.tensor([LEVELS.index(level) for level in self.levels])
        tensors["counts"] = torch.tensor([self.number, self.forwards])
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor]) -> Self:
        """Read what `tensors` returned, from a source that is not trusted.

        Raises:
            InputError: a tensor is missing, or has another type or shape than it should.
        """
        count, classes = (len(tensors[name]) if name in tensors else 0 for name in ("labels", "levels"))
        expected = {
            "images": (torch.uint8, 4, count),
            **dict.fromkeys(("labels", "sources"), (torch.int64, 1, count)),
            **dict.fromkeys(("margins", "factors"), (torch.float32, 1, count)),
            "class_margins": (torch.float32, 1, classes),
            "levels": (torch.int64, 1, classes),
            "counts": (torch.int64, 1, 2),
        }
        for name, kind in expected.items():
            tensor = tensors.get(name)
            found = None if tensor is None else (tensor.dtype, tensor.dim(), *tensor.shape[:1])
            if found != kind:
                raise InputError(
                    f"examples of feedback learning: expected {name} of type, dimensions and length {kind}, "
                    f"found {found}; take a file that muquant wrote"
                )
        places = tensors["levels"].tolist()
        if not all(0 <= place < len(LEVELS) for place in places):
            raise InputError(
                f"examples of feedback learning: expected levels 0 to {len(LEVELS) - 1}, found {places}; "
                f"take a file that muquant wrote"
            )
        number, forwards = tensors["counts"].tolist()
        levels = tuple(LEVELS[place] for place in places)
        return cls(
            number=number, levels=levels, forwards=forwards, **{name: tensors[name] for name in _TENSORS}
        )


_TENSORS = ("images", "labels", "sources", "margins", "factors", "class_margins")
