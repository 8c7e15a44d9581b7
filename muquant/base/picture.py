"""What all pictures share: the formats they are written in, and their colours."""

import os
from pathlib import Path

from matplotlib.figure import Figure

from muquant.base.errors import InputError
from muquant.base.files import atomic_path

FORMATS = (".pdf", ".png", ".svg")
BLACK, GREY, ORANGE, BLUE = "#111827", "#9aa7b4", "#c2410c", "#1d4ed8"
VIOLET = "#7e22ce"


def check_format(path: str | os.PathLike[str]) -> None:
    """Refuse a name that says no format.

    Raises:
        InputError: it ends in something else than `FORMATS`.
    """
    if Path(path).suffix not in FORMATS:
        raise InputError(f"cannot draw {path}: expected a name that ends in {', '.join(FORMATS)}")


def write_picture(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write `figure` in the format of its name, whole or not at all.

    Raises:
        InputError: the name says no format, or the file cannot be written.
    """
    check_format(path)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=Path(path).suffix[1:], dpi=120)
