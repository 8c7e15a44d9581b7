"""Names out of long lists."""

from collections.abc import Iterable
from difflib import get_close_matches

from muquant.base.errors import InputError


def unknown(what: str, name: str, known: Iterable[str], where: str) -> InputError:
    """Return the error for a name that is not among `known`; it suggests those that are alike.

    Args:
        what: such as "torchvision model".
        name: that was given.
        known: the names there are.
        where: to find them all.
    """
    close = get_close_matches(name, list(known), n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else f"{where} lists them"
    return InputError(f"{what} {name!r} is unknown; {hint}")
