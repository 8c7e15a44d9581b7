"""The look-up that every registry shares."""

from collections.abc import Mapping
from typing import TypeVar

from muquant.base.errors import InputError

T = TypeVar("T")


def look_up(kind: str, name: str, registry: Mapping[str, T]) -> T:
    """The entry of `registry` called `name`.

    Raises:
        InputError: there is none; the message lists the known ones.
    """
    if name not in registry:
        raise InputError(f"{kind} {name!r} is unknown; expected one of {', '.join(registry)}")
    return registry[name]
