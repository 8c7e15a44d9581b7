"""What every download through torchvision has in common."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

from muquant.base.errors import InputError
from muquant.base.files import make_folder
from muquant.data.request import DatasetRequest


@contextlib.contextmanager
def downloading(request: DatasetRequest, folder: Path) -> Iterator[None]:
    """Surround a torchvision constructor that may download into `folder`, which is made where it is missing.

    Its chatter goes to stderr, so that stdout stays the caller's.

    Raises:
        InputError: in place of what torchvision raises when the network or the downloaded file is bad.
    """
    make_folder(folder)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (OSError, RuntimeError) as error:  # URLError is an OSError
        reason = " ".join(str(error).split())
        raise InputError(
            f"data set {request.name}: cannot download it into {folder}: {reason}; check the network, "
            f"or put the files there by hand"
        ) from error
