"""The three parts of the data of a run."""

import os
from dataclasses import dataclass
from typing import Any

from muquant.base.errors import InputError
from muquant.base.seeds import derive_seed
from muquant.data import Dataset, load_dataset
from muquant.training.options.config import TrainingConfig


def load_run_data(
    config: TrainingConfig, root: str | os.PathLike[str] | None = None, download: bool = False
) -> "RunData":
    """Load the data of a run and hold out its validation part.

    The test split is loaded now, though it is used last, so that a fault in it shows before the training.

    Raises:
        InputError: as `load_dataset`; or the two splits differ in image size or classes, or of some class
            there is no image to train on.
    """
    whole = load_dataset(config.data, "train", root=root, download=download)
    test = load_dataset(config.data, "test", root=root)
    if (whole.input_shape, whole.classes) != (test.input_shape, test.classes):
        raise InputError(
            f"data set {config.data}: expected both splits alike, found images {whole.input_shape} in "
            f"{len(whole.classes)} classes to train and {test.input_shape} in {len(test.classes)} to test; "
            f"mend it"
        )
    identity = {"train": whole.digest, "test": test.digest}
    part, held_out = whole, None
    if config.validation:
        part, held_out = whole.split_off(config.validation, derive_seed(config.seed, "validation"))
    absent = sorted(set(range(len(part.classes))) - set(part.labels.tolist()))
    if absent:
        raise InputError(
            f"data set {config.data}: expected images of every class to train on, found none of "
            f"{', '.join(part.classes[label] for label in absent)}; add some, or hold out less"
        )
    return RunData(part, held_out, test, identity)


@dataclass(frozen=True, eq=False)
class RunData:
    """What a run trains, validates and tests on.

    Attributes:
        train: the training split without the held-out part.
        validation: the held-out part; None where the configuration holds nothing out.
        test: the test split.
        identity: the digests of the two whole splits, as JSON values.
    """

    train: Dataset
    validation: Dataset | None
    test: Dataset
    identity: dict[str, Any]
