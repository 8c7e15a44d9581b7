"""A data set from arrays of one's own: npz:FILE."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from muquant.base.arrays import Array, read_arrays
from muquant.base.errors import InputError
from muquant.data.dataset import Dataset
from muquant.data.request import DatasetRequest

_IMAGES, _LABELS, _INDICES, _CLASSES = (
    ("images", "clean"),
    ("labels", "label"),
    ("indices", "index"),
    ("classes",),
)
"""Names of the arrays; the second ones are those of what `muquant bench --examples` writes."""

MOST_CLASSES = 1 << 20
"""More are no classes."""


def load_arrays(request: DatasetRequest) -> Dataset:
    """The images in a .npz file: its arrays `images`, `labels`, and `indices` and `classes` if it has them.

    Images are uint8, 0 to 255, or floats in [0, 1], [N, C, H, W] or [N, H, W]; labels integers [N].
    `indices`, integers [N] from 0, say where the images lie in what they were taken from, and `classes`, one
    number, how many classes there are: as many as the largest label needs where it does not say. Other arrays
    are passed over, so that files of `muquant bench --examples` can be read. They are images to test with.

    Raises:
        InputError: the file cannot be read, an array is missing or does not fit, images lie outside of
            [0, 1], or training images are asked for.
    """
    path = Path(request.argument).expanduser()
    if request.split != "test":
        raise InputError(
            f"data set {request.name}: expected images to train with, found arrays, which are to test with; "
            "give folder:PATH"
        )
    arrays = read_arrays(path)
    images, labels = (_needed(arrays, names, path) for names in (_IMAGES, _LABELS))
    indices, count = (_first(arrays, names) for names in (_INDICES, _CLASSES))
    pixels = _pixels(images, path)
    numbers = _integers(labels, "labels", len(pixels), path)
    places = None if indices is None else _integers(indices, "indices", len(pixels), path)
    classes = int(numbers.max()) + 1
    if count is not None:
        classes = int(_integers(count.reshape(-1), "classes", 1, path))
    if not 2 <= classes <= MOST_CLASSES:
        raise InputError(
            f"{path}: expected 2 to {MOST_CLASSES:,} classes, found {classes}; give their number as classes"
        )
    return Dataset(request.name, request.split, pixels, numbers, tuple(map(str, range(classes))), places)


def _needed(arrays: Mapping[str, Array], names: tuple[str, ...], path: Path) -> Array:
    found = _first(arrays, names)
    if found is None:
        raise InputError(
            f"{path}: expected an array called {names[0]}, found {', '.join(map(repr, arrays)) or 'none'}; "
            "write it with numpy.savez(FILE, images=..., labels=...)"
        )
    return found


def _first(arrays: Mapping[str, Array], names: tuple[str, ...]) -> Array | None:
    return next((arrays[name] for name in names if name in arrays), None)


def _pixels(images: Array, path: Path) -> Tensor:
    if images.ndim == 3:
        images = images[:, None]
    if images.ndim != 4 or not images.size or (images.dtype != np.uint8 and images.dtype.kind != "f"):
        raise InputError(
            f"{path}: images: expected uint8 or floats [N, C, H, W] or [N, H, W], none of them zero, found "
            f"{images.dtype} {list(images.shape)}; convert them"
        )
    if images.dtype == np.uint8:
        return torch.from_numpy(np.ascontiguousarray(images))
    return torch.from_numpy(np.ascontiguousarray(images, np.float32))


def _integers(array: Array, what: str, count: int, path: Path) -> Tensor:
    negative = array.dtype.kind in "if" and bool((array < 0).any())
    if array.shape != (count,) or array.dtype.kind not in "iu" or negative:
        below = ", some below 0" if negative else ""
        raise InputError(
            f"{path}: {what}: expected integers from 0, [{count}], found {array.dtype} {list(array.shape)}"
            f"{below}; convert them"
        )
    return torch.from_numpy(array.astype(np.int64))
