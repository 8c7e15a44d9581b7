"""`Dataset`: a labelled set of images, whole in memory."""

import hashlib
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from muquant.base.errors import InputError

SPLITS = ("train", "test")
_SMALLEST_STD = 1 / 255  # one grey level: a constant channel stays divisible


@dataclass(frozen=True, eq=False)
class Dataset:
    """Labelled images of one size.

    Attributes:
        name: the name it was loaded by.
        split: "train" or "test".
        images: uint8 [N, C, H, W], 0 black to 255 white; to test with, also float32 in [0, 1].
        labels: int64 [N], each in 0..len(classes) - 1.
        classes: the names of the classes, in label order.
        indices: int64 [N], where the images lie in what they were taken from; None where that is this set.

    Raises:
        InputError: the tensors do not have these shapes, types and ranges, or a label has no class.
    """

    name: str
    split: str
    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    indices: Tensor | None = None

    def __post_init__(self) -> None:
        where = f"data set {self.name} ({self.split})"
        if self.split not in SPLITS:
            raise InputError(f"{where}: expected the split train or test, found {self.split!r}; choose one")
        kinds = (torch.uint8,) if self.split == "train" else (torch.uint8, torch.float32)
        if self.images.dtype not in kinds or self.images.dim() != 4 or 0 in self.images.shape:
            raise InputError(
                f"{where}: expected images as uint8 [N, C, H, W], none of them zero, found "
                f"{self.images.dtype} {list(self.images.shape)}; convert them"
            )
        if self.images.dtype == torch.float32:
            flat = self.images.flatten(1)
            outside = int((~((flat.amin(1) >= 0) & (flat.amax(1) <= 1))).sum())  # NaN is outside
            if outside:
                low, high = (float(value) for value in flat.aminmax())
                raise InputError(
                    f"{where}: expected floats in [0, 1], found {low:g} to {high:g}, outside in {outside} of "
                    f"{len(flat)} images; scale them, or give uint8"
                )
        if self.labels.dtype != torch.int64 or self.labels.shape != self.images.shape[:1]:
            raise InputError(
                f"{where}: expected labels as int64 [{len(self.images)}], found {self.labels.dtype} "
                f"{list(self.labels.shape)}; give one label for each image"
            )
        low, high = int(self.labels.min()), int(self.labels.max())
        if low < 0 or high >= len(self.classes):
            raise InputError(
                f"{where}: expected labels in 0..{len(self.classes) - 1}, found {low}..{high}; "
                f"name every class"
            )

    def __len__(self) -> int:
        return len(self.images)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def inputs(self, indices: Tensor | slice | None = None) -> Tensor:
        """The images as network inputs: float32 [n, C, H, W] in [0, 1].

        Args:
            indices: which ones, int64 [n] or a slice; None means all.
        """
        chosen = self.images if indices is None else self.images[indices]
        return chosen.clone() if chosen.is_floating_point() else chosen.to(torch.float32).div_(255)

    def subset(self, indices: Tensor) -> "Dataset":
        """The images and labels at `indices`, int64 [n] with n >= 1, in that order."""
        places = None if self.indices is None else self.indices[indices]
        return replace(self, images=self.images[indices], labels=self.labels[indices], indices=places)

    def places(self, rows: Tensor) -> Tensor:
        """Where the images in `rows`, int64 [n], lie in what they were taken from, int64 [n]."""
        return rows if self.indices is None else self.indices[rows]

    def evenly(self, most: int) -> "Dataset":
        """Up to `most` of the images, evenly over the whole."""
        count = min(len(self), most)
        return self.subset(torch.arange(count) * len(self) // count)

    def split_off(self, fraction: float, seed: int) -> tuple["Dataset", "Dataset"]:
        """Hold out a random part: the same fraction of every class, the same part for the same seed.

        Args:
            fraction: how much is held out, above 0 and below 1.
            seed: of the choice.

        Returns:
            The rest and the held-out part, both in the order of the whole.

        Raises:
            InputError: the fraction is out of range, or so extreme that one of the parts is empty.
        """
        if not 0 < fraction < 1:
            raise InputError(f"held-out fraction: expected above 0 and below 1, found {fraction}; give 0.1")
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(len(self), generator=generator)
        held_out = torch.zeros(len(self), dtype=torch.bool)
        for label in range(len(self.classes)):
            members = order[self.labels[order] == label]
            held_out[members[: round(fraction * len(members))]] = True
        count = int(held_out.sum())
        if count in (0, len(self)):
            raise InputError(
                f"data set {self.name} ({self.split}): holding out the fraction {fraction} of every class "
                f"leaves parts of {len(self) - count} and {count} images, expected both above 0; "
                f"give another fraction"
            )
        return self.subset((~held_out).nonzero()[:, 0]), self.subset(held_out.nonzero()[:, 0])

    @cached_property
    def mean(self) -> tuple[float, ...]:
        """Mean of every channel over all pixels, in [0, 1]."""
        return tuple(mean for mean, _ in self._statistics)

    @cached_property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of every channel over all pixels, in [1/255, 0.5]: 1/255 if it is constant."""
        return tuple(std for _, std in self._statistics)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of shape, pixels and labels: equal for equal data, wherever it was loaded from."""
        sha = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        sha.update(self.images.contiguous().numpy().data)
        sha.update(self.labels.contiguous().numpy().data)
        return sha.hexdigest()

    @cached_property
    def _statistics(self) -> list[tuple[float, float]]:
        # From the 256-bin histogram: exact in float64, and no float copy of the images is made.
        if self.images.is_floating_point():
            columns = self.images.transpose(0, 1).flatten(1).double()
            return [
                (float(column.mean()), max(float(column.std(correction=0)), _SMALLEST_STD))
                for column in columns
            ]
        levels = torch.arange(256, dtype=torch.float64) / 255
        result = []
        for channel in range(self.images.shape[1]):
            counts = torch.bincount(self.images[:, channel].flatten(), minlength=256).to(torch.float64)
            share = counts / counts.sum()
            mean = float((share * levels).sum())
            variance = float((share * (levels - mean) ** 2).sum())
            result.append((mean, max(variance**0.5, _SMALLEST_STD)))
        return result
