"""MNIST in torchvision's layout: ROOT/MNIST/raw/train-images-idx3-ubyte and its three siblings."""

import math
import os
import struct
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from muquant.base.errors import InputError
from muquant.base.reading import open_file
from muquant.data.dataset import Dataset
from muquant.data.downloads import downloading
from muquant.data.request import DatasetRequest


def load_mnist(request: DatasetRequest) -> Dataset:
    """MNIST: 60,000 and 10,000 grey images of 28x28 pixels.

    Raises:
        InputError: a file is missing or damaged, or the download failed.
    """
    folder = request.data_folder()
    if request.download:
        _download(request, folder)
    prefix = folder / "MNIST" / "raw" / ("train" if request.split == "train" else "t10k")
    images = read_idx(prefix.with_name(f"{prefix.name}-images-idx3-ubyte"), dimensions=3)
    labels = read_idx(prefix.with_name(f"{prefix.name}-labels-idx1-ubyte"), dimensions=1)
    return Dataset(
        request.name,
        request.split,
        images[:, None],
        labels.to(torch.int64),
        tuple(str(label) for label in range(10)),
    )


def _download(request: DatasetRequest, folder: Path) -> None:
    """Fetch what is missing and check its MD5; what is there is not read."""
    from torchvision import datasets  # a second to import

    class MNIST(datasets.MNIST):  # type: ignore[misc]  # has no types; the folder has the name of the class
        """Torchvision's, without its readers: they would open pickled copies in `processed` first."""

        def _check_legacy_exist(self) -> bool:
            return False

        def _load_data(self) -> tuple[Tensor, Tensor]:
            return torch.empty(0), torch.empty(0)

    with downloading(request, folder):
        MNIST(str(folder), download=True)


def read_idx(path: Path, dimensions: int) -> Tensor:
    """Read an IDX file of bytes: 0, 0, 8 (the type), the number of dimensions, their big-endian sizes, data.

    torchvision's reader is not used: it falls back to a pickled copy where it finds one, and it reports a
    truncated file by an assertion.

    Returns:
        uint8, of the shape that the header states.

    Raises:
        InputError: the file is missing, or is not an IDX file of that many dimensions and the stated length.
    """
    with open_file(path, "a file of MNIST is expected there, which --download fetches") as file:
        start = 4 + 4 * dimensions
        header = file.read(start)
        if len(header) < start or header[:4] != bytes((0, 0, 8, dimensions)):
            raise InputError(
                f"{path} is not an IDX file of bytes with {dimensions} dimensions: expected it to start with "
                f"000008{dimensions:02x}, found {header[:4].hex() or 'nothing'}; delete it and fetch it "
                f"again with --download"
            )
        shape = struct.unpack(f">{dimensions}I", header[4:])
        expected, found = start + math.prod(shape), os.fstat(file.fileno()).st_size
        if found != expected:
            raise InputError(
                f"{path} is damaged: its header promises {expected} bytes, found {found}; delete it and "
                f"fetch it again with --download"
            )
        pixels = np.frombuffer(file.read(), np.uint8)
    return torch.from_numpy(pixels.reshape(shape).copy())
