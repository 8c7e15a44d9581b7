"""Value objects out of JSON that is not trusted."""

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


def check_options(options: Any, ranges: Mapping[str, tuple[float, float]]) -> None:
    """Compare the fields of a dataclass with their annotated types and with `ranges`.

    Args:
        options: an instance whose annotations are types or unions of types; an int passes for a float.
        ranges: field -> (lowest, bound that the value stays below); None is in every range.

    Raises:
        InputError: a value is of another type or out of range.
    """
    for field in fields(options):
        value = getattr(options, field.name)
        union = isinstance(field.type, UnionType)
        kinds = get_args(field.type) if union else (get_origin(field.type) or field.type,)
        types = (*kinds, int) if float in kinds else kinds
        if (isinstance(value, bool) and bool not in kinds) or not isinstance(value, types):
            names = " or ".join("nothing" if kind is type(None) else kind.__name__ for kind in kinds)
            raise InputError(f"training option {field.name}: expected {names}, found {value!r}; correct it")
    for name, (low, below) in ranges.items():
        value = getattr(options, name)
        if value is not None and not low <= value < below:
            raise InputError(
                f"training option {name}: expected at least {low:g} and below {below:g}, found {value}; "
                f"correct it"
            )
