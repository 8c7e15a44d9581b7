"""What a loader is asked for, and where the files of a data set are looked for."""

import os
from dataclasses import dataclass
from pathlib import Path

from muquant.base.errors import InputError

DATA_VARIABLE = "MUQUANT_DATA"


@dataclass(frozen=True)
class DatasetRequest:
    """One call of `load_dataset`, as a loader of the registry receives it.

    Attributes:
        name: the full name, `folder:photos` for example.
        argument: what stands behind the colon of the name, "" where there is none.
        split: "train" or "test".
        root: the folder that the caller named, or None.
        download: whether the network may be used.
    """

    name: str
    argument: str
    split: str
    root: Path | None
    download: bool

    def data_folder(self) -> Path:
        """The folder that holds downloaded data sets: `root`, or else the environment's MUQUANT_DATA.

        Raises:
            InputError: neither is given.
        """
        if self.root is not None:
            return self.root
        folder = os.environ.get(DATA_VARIABLE)
        if not folder:
            raise InputError(
                f"data set {self.name}: expected a data folder, found none; set {DATA_VARIABLE}=FOLDER to "
                f"where the data is, or is to be stored by --download"
            )
        return Path(folder)
