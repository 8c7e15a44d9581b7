"""Directions in which the decision boundary is looked for. One function each, one line in `DIRECTIONS`."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Generator, Tensor

from muquant.attacks.norms import unit
from muquant.data import Dataset

Directions = Callable[[Tensor, Tensor, int, Sequence[Generator]], Tensor]
"""(images float32 [N, C, H, W], labels int64 [N], count, a generator for each image; all on the CPU)
-> count directions of unit L2 norm for each image, float32 [N, count, C, H, W]"""


def random(dataset: Dataset) -> Directions:
    """Orthonormal directions, drawn anew for each image, whatever the data is."""

    def draw(images: Tensor, labels: Tensor, count: int, generators: Sequence[Generator]) -> Tensor:
        bases = [orthonormal(images[0].numel(), count, generator) for generator in generators]
        return torch.stack(bases).reshape(len(images), count, *images.shape[1:])

    return draw


def class_means(dataset: Dataset) -> Directions:
    """Towards the mean image of every other class; random directions make up the number.

    Examples come to lie among real images of another class, with the wrong label: on MNIST they made the
    model less robust and less accurate. For comparison, not for use.
    """
    every = torch.arange(len(dataset.classes))
    means = torch.stack([dataset.inputs(dataset.labels == label).mean(0) for label in every])

    def draw(images: Tensor, labels: Tensor, count: int, generators: Sequence[Generator]) -> Tensor:
        towards = [means[every != label] - image for image, label in zip(images, labels, strict=True)]
        return _completed(dataset, towards, images, labels, count, generators)

    return draw


def neighbours(dataset: Dataset) -> Directions:
    """Towards the nearest images of other classes; random directions make up the number.

    It fails like `class_means`, and worse.
    """

    def draw(images: Tensor, labels: Tensor, count: int, generators: Sequence[Generator]) -> Tensor:
        parts = [slice(start, start + _BLOCK) for start in range(0, len(dataset), _BLOCK)]
        # products of matrices round by how many images there are, and so would the order of equal distances
        apart = partial(torch.cdist, images.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
        distance = torch.cat([apart(dataset.inputs(part).flatten(1)) for part in parts], dim=1)
        distance[labels[:, None] == dataset.labels] = torch.inf
        towards = []
        for image, row in zip(images, distance, strict=True):
            order = row.argsort(stable=True)[: min(count, int(row.isfinite().sum()))]
            towards.append(dataset.inputs(order) - image)
        return _completed(dataset, towards, images, labels, count, generators)

    return draw


DIRECTIONS: dict[str, Callable[[Dataset], Directions]] = {
    "random": random,
    "class-means": class_means,
    "neighbours": neighbours,
}

_BLOCK = 4096  # images whose pixels are floats at a time


def orthonormal(values: int, count: int, generator: Generator) -> Tensor:
    """Random directions of unit L2 norm, at right angles to each other, [count, values].

    They are uniformly distributed: the signs that QR leaves open are those of the diagonal of R (Mezzadri
    2007). Where more are asked for than the space has dimensions, they come in several such sets.
    """
    sets = []
    for start in range(0, count, values):
        normal = torch.randn(values, min(values, count - start), generator=generator)
        q, r = torch.linalg.qr(normal)
        sets.append((q * r.diagonal().sign()).mT)
    return torch.cat(sets)


def _completed(
    dataset: Dataset,
    towards: Sequence[Tensor],
    images: Tensor,
    labels: Tensor,
    count: int,
    generators: Sequence[Generator],
) -> Tensor:
    """The given differences [n, C, H, W] of each image at unit length, and then random directions."""
    rest = random(dataset)(images, labels, count, generators)
    return torch.stack(
        [torch.cat([unit(some), others])[:count] for some, others in zip(towards, rest, strict=True)]
    )
