"""Random changes of training images. All randomness comes from the generator that is handed in."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor
from torch.nn import functional

Augmentation = Callable[[Tensor, Generator], Tensor]
"""(images [N, C, H, W] in [0, 1], generator on the CPU) -> images of the same shape and range"""


def unchanged(images: Tensor, generator: Generator) -> Tensor:
    """The images as they are."""
    return images


def shift(images: Tensor, generator: Generator) -> Tensor:
    """Move every image by up to 1/14 of its size, at least one pixel, each way; what comes in is black.

    For written characters: 2 pixels of 28.
    """
    reach = max(1, round(max(images.shape[2:]) / 14))
    return _moved(functional.pad(images, (reach,) * 4), images.shape, generator)


def flip_crop(images: Tensor, generator: Generator) -> Tensor:
    """Mirror half of the images left to right and move every one by up to 1/8, reflecting at the border.

    For photographs: the usual augmentation of CIFAR-10, 4 pixels of 32.
    """
    mirrored = torch.rand(len(images), generator=generator) < 0.5
    images = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    reach = max(1, max(images.shape[2:]) // 8)
    return _moved(functional.pad(images, (reach,) * 4, mode="reflect"), images.shape, generator)


def flip_crop_cutout(images: Tensor, generator: Generator) -> Tensor:
    """`flip_crop`, then a grey square of a third of the smaller side anywhere in each image, cut off where it
    leaves it (DeVries, Taylor 2017).

    For photographs, where a network that is trained for long learns its training images by heart.
    """
    images = flip_crop(images, generator)
    count, _, height, width = images.shape
    side = max(1, min(height, width) // 3)
    inside = []
    for length in (height, width):
        centre = torch.randint(length, (count, 1), generator=generator)
        start = centre - side // 2
        place = torch.arange(length)
        inside.append((start <= place) & (place < start + side))
    hidden = inside[0][:, None, :, None] & inside[1][:, None, None, :]
    return images.masked_fill(hidden, 0.5)


AUGMENTATIONS: dict[str, Augmentation] = {
    "none": unchanged,
    "shift": shift,
    "flip-crop": flip_crop,
    "flip-crop-cutout": flip_crop_cutout,
}


def cut_and_mix(
    images: Tensor, labels: Tensor, classes: int, alpha: float, seed: int
) -> tuple[Tensor, Tensor]:
    """Put one rectangle of the next image of the batch into each, at the same place.

    Args:
        images: [N, C, H, W].
        labels: int64 [N].
        classes: how many there are.
        alpha: above 0; the share that stays is drawn from Beta(alpha, alpha), before what leaves the image
            is cut off.
        seed: of the draws.

    Returns:
        Images of the same shape, and the shares of the classes, float32 [N, classes].
    """
    from torchvision.transforms.v2 import CutMix  # it takes a second to import

    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        mixed, shares = CutMix(alpha=alpha, num_classes=classes)(images, labels)
    return mixed, shares


def _moved(padded: Tensor, shape: torch.Size, generator: Generator) -> Tensor:
    """Cut one window of `shape` out of each padded image, each at its own random place."""
    count, channels, height, width = shape
    tops = torch.randint(padded.shape[2] - height + 1, (count, 1), generator=generator)
    lefts = torch.randint(padded.shape[3] - width + 1, (count, 1), generator=generator)
    rows = (tops + torch.arange(height))[:, None, :, None]
    columns = (lefts + torch.arange(width))[:, None, None, :]
    return padded[
        torch.arange(count)[:, None, None, None], torch.arange(channels)[:, None, None], rows, columns
    ]
