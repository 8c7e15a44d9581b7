"""A data set from image files: PATH/train/CLASS/*.jpg and PATH/test/CLASS/*.jpg."""

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from muquant.base.errors import InputError
from muquant.base.reading import require_file
from muquant.data.dataset import Dataset
from muquant.data.request import DatasetRequest

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
FORMATS = ("BMP", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
"""What Pillow may take a file for, whatever its name: for others it starts programs (EPS: Ghostscript)."""
MAX_BYTES = 8 << 30
"""The largest split that is decoded, in bytes of uint8 pixels: it has to fit into memory."""

_CHANNELS = {"L": 1, "RGB": 3}


def load_folder(request: DatasetRequest) -> Dataset:
    """The images under PATH/train or PATH/test, one folder for each class, in the order of their names.

    All images have one size and one mode, 8-bit grey or RGB. The classes are the folders under PATH/train, so
    that both splits number them alike; names that begin with a dot are passed over, and so are files whose
    suffix is not an image's.

    Raises:
        InputError: a folder is missing or holds no image, an image cannot be read or differs from the others
            in size or mode, a class of the test split is not among the training classes, or all together are
            larger than `MAX_BYTES`.
    """
    base = Path(request.argument).expanduser()
    classes = _class_names(base / "train" if (base / "train").is_dir() else base / request.split)
    files: list[Path] = []
    labels: list[int] = []
    for name in _class_names(base / request.split):
        if name not in classes:
            raise InputError(
                f"{base / request.split / name}: expected one of the classes of {base / 'train'}, "
                f"found {name!r}; rename or remove the folder"
            )
        found = _images_in(base / request.split / name)
        files += found
        labels += [classes.index(name)] * len(found)
    images = _decode(files)
    return Dataset(request.name, request.split, torch.from_numpy(images), torch.tensor(labels), classes)


def _class_names(folder: Path) -> tuple[str, ...]:
    try:
        names = sorted(path.name for path in folder.iterdir() if path.is_dir() and path.name[0] != ".")
    except OSError as error:
        raise InputError(
            f"cannot read {folder}: {error.strerror}; expected a folder there, with one folder of images for "
            f"each class in it"
        ) from error
    if not names:
        raise InputError(f"{folder}: expected one folder of images for each class, found none; add them")
    return tuple(names)


def _images_in(folder: Path) -> list[Path]:
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != ".")
    if not files:
        raise InputError(
            f"{folder}: expected image files ({' '.join(sorted(SUFFIXES))}), found none; add some or remove "
            f"the folder"
        )
    return files


def _decode(files: list[Path]) -> npt.NDArray[np.uint8]:
    """All images as [N, C, H, W]: the first one sets size and mode; sizes are checked before any decoding."""
    with _opened(files[0]) as first:
        size, mode = first.size, first.mode
    width, height = size
    shape = (len(files), _CHANNELS.get(mode, 1), height, width)
    if (total := int(np.prod(shape, dtype=object))) > MAX_BYTES:
        raise InputError(
            f"{files[0].parent.parent}: {len(files)} images of {width}x{height} pixels need {total} bytes, "
            f"expected at most {MAX_BYTES}; scale them down or use fewer"
        )
    images = np.empty(shape, np.uint8)

    def decode(index: int) -> None:
        with _opened(files[index]) as image:
            if image.mode not in _CHANNELS:
                raise InputError(
                    f"{files[index]}: expected an 8-bit grey (L) or RGB image, found mode {image.mode}; "
                    f"convert it"
                )
            if (image.size, image.mode) != (size, mode):
                raise InputError(
                    f"{files[index]}: expected {width}x{height} pixels, mode {mode}, as {files[0]} has, "
                    f"found {image.width}x{image.height}, mode {image.mode}; make all images alike"
                )
            try:
                pixels = np.asarray(image)
            except (OSError, SyntaxError, ValueError) as error:
                raise InputError(
                    f"cannot read {files[index]}: {error}; replace or remove the image"
                ) from error
        images[index] = pixels.reshape(height, width, -1).transpose(2, 0, 1)

    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:  # PIL decodes without the GIL
        for _ in pool.map(decode, range(len(files))):
            pass
    return images


def _opened(path: Path) -> Image.Image:
    """The image with its header read and its pixels not yet decoded."""
    require_file(path, "replace or remove it")
    try:
        return Image.open(path, formats=FORMATS)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise InputError(
            f"cannot read {path}: expected an image ({', '.join(FORMATS)}), found none: {error}; "
            "replace or remove it"
        ) from error
