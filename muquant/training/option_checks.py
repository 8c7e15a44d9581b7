"""Checks that all groups of training options share."""

from collections.abc import Mapping
from dataclasses import fields
from types import UnionType
from typing import Any, get_args, get_origin

from muquant.errors import InputError


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
