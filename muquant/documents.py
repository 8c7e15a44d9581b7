"""Value objects out of JSON that is not trusted."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from muquant.errors import InputError


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
