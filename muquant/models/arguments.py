"""What a model can be called with, as far as its signature says it."""

import inspect
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from torch import nn


@dataclass(frozen=True)
class Arguments:
    """What a model takes in order.

    Attributes:
        least: how many must be given.
        most: how many may be given; None where there is no telling.
        names: of those that may.
        ranks: how many axes each has, by name; None where that is open. Empty where nothing is said of it.
    """

    least: int
    most: int | None
    names: tuple[str, ...] = ()
    ranks: Mapping[str, int | None] = field(default_factory=dict)

    @classmethod
    def of(cls, module: nn.Module) -> Self:
        """Read the signature of a module's `forward`."""
        try:
            parameters = inspect.signature(module.forward).parameters.values()
        except (TypeError, ValueError):  # of what is not written in Python
            return cls(0, None)
        ordered = [
            each for each in parameters if each.kind in (each.POSITIONAL_ONLY, each.POSITIONAL_OR_KEYWORD)
        ]
        least = sum(each.default is each.empty for each in ordered)
        any_number = any(each.kind is each.VAR_POSITIONAL for each in parameters)
        return cls(least, None if any_number else len(ordered), tuple(each.name for each in ordered))
