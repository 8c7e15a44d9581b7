"""CIFAR-10 in torchvision's layout: ROOT/cifar-10-batches-py/data_batch_1 and its siblings."""

import torch

from muquant.base.errors import InputError
from muquant.data.dataset import Dataset
from muquant.data.downloads import downloading
from muquant.data.request import DatasetRequest


def load_cifar10(request: DatasetRequest) -> Dataset:
    """CIFAR-10: 50,000 and 10,000 RGB images of 32x32 pixels.

    Raises:
        InputError: the files are missing or are not the published ones, or the download failed.
    """
    from torchvision.datasets import CIFAR10  # a second to import

    folder = request.data_folder()
    if request.download:
        with downloading(request, folder):
            CIFAR10(str(folder), download=True)
    try:
        # The files are pickles, which run code when they are read. They are only read here because
        # torchvision first checks the MD5 of every one against the published list, and refuses any other.
        published = CIFAR10(str(folder), train=request.split == "train")
    except RuntimeError as error:
        raise InputError(
            f"data set {request.name}: expected the published CIFAR-10 files in "
            f"{folder / CIFAR10.base_folder}, found them missing or changed; --download fetches them"
        ) from error
    images = torch.from_numpy(published.data).permute(0, 3, 1, 2).contiguous()
    labels = torch.tensor(published.targets, dtype=torch.int64)
    return Dataset(request.name, request.split, images, labels, tuple(published.classes))
