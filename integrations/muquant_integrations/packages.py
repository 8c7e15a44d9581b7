"""Packages that nobody needs but those who use them."""

from collections.abc import Iterator
from contextlib import contextmanager

from muquant.base.errors import InputError, first_line


@contextmanager
def needing(package: str, what: str) -> Iterator[None]:
    """Say which package to install where an import in the block fails.

    Args:
        package: as pip knows it.
        what: needs it; begins the message.

    Raises:
        InputError: it cannot be imported.
    """
    try:
        yield
    except ImportError as error:
        raise InputError(
            f"{what} needs the package {package} ({first_line(error)}); install it: pip install {package}"
        ) from error
