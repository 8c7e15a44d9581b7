"""Pictures of nothing, whose edges, areas and colours are like those of photographs."""

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

_LEAVES = 192
_SMALLEST, _LARGEST = 0.02, 0.6
"""Radii, in shares of the shorter side."""


def leaves(random: Generator, count: int, channels: int, height: int, width: int) -> NDArray[np.float32]:
    """Return pictures [count, channels, height, width], of mean 0 and deviation 1 each.

    Dead leaves: discs and boxes, one over the other, their radii r as often as 1 / r^3 (Lee, Mumford, Huang,
    "Occlusion Models for Natural Images", 2001), each of one colour and shaded from side to side. Networks
    learn from such pictures nearly as well as from photographs (Baradad et al., "Learning to See by Looking
    at Noise", NeurIPS 2021).

    Args:
        random: that they are drawn from.
        count: of pictures.
        channels: 1 or more; colours are mostly alike in all of them, as brightness is.
        height: in pixels.
        width: likewise.
    """
    pictures = np.empty((count, channels, height, width), np.float32)
    for picture in pictures:
        picture[:] = _colour(random, channels)
        for _ in range(_LEAVES):
            _cover(random, picture)
        picture += 0.05 * random.standard_normal(picture.shape, np.float32)
        picture -= picture.mean()
        picture /= max(float(picture.std()), 1e-3)
    return pictures


def from_0_to_1(pictures: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return pictures of mean 0 and deviation 1 as numbers from 0 to 1: networks take either."""
    return (pictures / 4 + 0.5).clip(0, 1)


def _colour(random: Generator, channels: int) -> NDArray[np.float32]:
    colour = random.standard_normal() + 0.3 * random.standard_normal((channels, 1, 1))
    return colour.astype(np.float32)


def _cover(random: Generator, picture: NDArray[np.float32]) -> None:
    """Lay a leaf over a picture, in place."""
    channels, height, width = picture.shape
    least, most = _SMALLEST**-2, _LARGEST**-2
    radius = min(height, width) / np.sqrt(least + (most - least) * random.random())
    tall, wide = radius * random.uniform(0.5, 1, 2)
    y, x = random.uniform(0, height), random.uniform(0, width)
    top, bottom = max(0, int(y - tall)), min(height, int(y + tall) + 1)
    left, right = max(0, int(x - wide)), min(width, int(x + wide) + 1)
    if top >= bottom or left >= right:
        return
    down = ((np.arange(top, bottom) - y) / tall).astype(np.float32)[:, None]
    along = ((np.arange(left, right) - x) / wide).astype(np.float32)[None]
    slopes = 0.3 * random.standard_normal(2)
    leaf = _colour(random, channels) + np.float32(slopes[0]) * down + np.float32(slopes[1]) * along
    part = picture[:, top:bottom, left:right]
    if random.random() < 0.5:
        part[:] = leaf
    else:
        np.copyto(part, leaf, where=down**2 + along**2 < 1)
