"""Dataclasses whose values are not trusted: read from JSON, and checked by their types and ranges."""

from collections.abc import Mapping
from dataclasses import fields
from types import UnionType
from typing import Any, get_args, get_origin

from muquant.base.errors import InputError


def field_values(kind: type, document: object, what: str) -> dict[str, Any]:
    """Return `document` as arguments of the dataclass `kind`, whose constructor checks their values.

    Args:
        kind: a dataclass.
        document: a JSON value; lists become tuples.
        what: the document's name in messages.

    Raises:
        InputError: it is not an object, or a field is missing or unknown.
    """
    expected = {field.name for field in fields(kind)}
    if not isinstance(document, Mapping) or set(document) != expected:
        found = sorted(map(str, document)) if isinstance(document, Mapping) else type(document).__name__
        raise InputError(
            f"{what}: expected the fields {sorted(expected)}, found {found}; take a file that muquant wrote"
        )
    return {key: tuple(value) if isinstance(value, list) else value for key, value in document.items()}


def check_fields(value: Any, ranges: Mapping[str, tuple[float, float]], what: str) -> None:
    """Compare the fields of a dataclass with their annotated types and with `ranges`.

    Args:
        value: an instance whose annotations are types or unions of types; an int passes for a float.
        ranges: field -> (lowest, bound that the value stays below); None is in every range, and a field
            without a range may have any value of its type.
        what: what a field is called in messages, before its name.

    Raises:
        InputError: a field is of another type or out of range.
    """
    for field in fields(value):
        found = getattr(value, field.name)
        union = get_args(field.type) if isinstance(field.type, UnionType) else (field.type,)
        kinds = tuple(get_origin(kind) or kind for kind in union)
        types = (*kinds, int) if float in kinds else kinds
        if (isinstance(found, bool) and bool not in kinds) or not isinstance(found, types):
            names = " or ".join("nothing" if kind is type(None) else kind.__name__ for kind in kinds)
            raise InputError(f"{what} {field.name}: expected {names}, found {found!r}; correct it")
    for name, (low, below) in ranges.items():
        found = getattr(value, name)
        if found is not None and not low <= found < below:
            raise InputError(
                f"{what} {name}: expected at least {low:g} and below {below:g}, found {found}; correct it"
            )
