"""`load_dataset` and the one table of data sets."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from muquant.base.errors import InputError
from muquant.data.arrays import load_arrays
from muquant.data.cifar import load_cifar10
from muquant.data.dataset import SPLITS, Dataset
from muquant.data.digits import load_digits
from muquant.data.folder import load_folder
from muquant.data.mnist import load_mnist
from muquant.data.request import DatasetRequest


def load_dataset(
    name: str, split: str, *, root: str | os.PathLike[str] | None = None, download: bool = False
) -> Dataset:
    """Load one split of a data set into memory.

    Args:
        name: a name of `DATASETS`: "digits", "mnist", "cifar10", "folder:PATH" for a tree of image files, or
            "npz:FILE" for arrays to test with.
        split: "train" or "test".
        root: the folder that holds downloaded data sets; None means the environment's MUQUANT_DATA. Data sets
            that are embedded ("digits") or carry their own path ("folder:PATH") do not use it.
        download: fetch what is missing into `root`. Without it the network is never used.

    Raises:
        InputError: an unknown name or split, or data that is missing, damaged or inconsistent.
    """
    key, colon, argument = name.partition(":")
    entry = DATASETS.get(key)
    if entry is None or bool(argument) != bool(entry.argument) or bool(colon) != bool(entry.argument):
        raise InputError(f"data set {name!r} is not known; choose one of {', '.join(dataset_names())}")
    if split not in SPLITS:
        raise InputError(f"data set {name}: expected the split train or test, found {split!r}; choose one")
    folder = None if root is None else Path(root)
    return entry.load(DatasetRequest(name, argument, split, folder, download))


@dataclass(frozen=True)
class DatasetEntry:
    """A line of the registry.

    Attributes:
        load: makes the data set that a request asks for, or raises `InputError`.
        argument: what a name has to carry behind a colon, "PATH" for example; "" where nothing follows it.
    """

    load: Callable[[DatasetRequest], Dataset]
    argument: str = ""


DATASETS: dict[str, DatasetEntry] = {
    "digits": DatasetEntry(load_digits),
    "mnist": DatasetEntry(load_mnist),
    "cifar10": DatasetEntry(load_cifar10),
    "folder": DatasetEntry(load_folder, argument="PATH"),
    "npz": DatasetEntry(load_arrays, argument="FILE"),
}


def dataset_names() -> tuple[str, ...]:
    """The known names as a user writes them: ("digits", ..., "folder:PATH")."""
    return tuple(f"{key}:{entry.argument}" if entry.argument else key for key, entry in DATASETS.items())
