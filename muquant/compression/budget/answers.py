"""What a model answers, as far as its accuracy depends on it."""

from collections.abc import Iterable

import torch
from torch import Tensor

from muquant.base.errors import InputError
from muquant.compression.answers.classes import class_axis
from muquant.compression.budget.plan import Drop


def answers(output: Tensor) -> Tensor:
    """Return the class with the largest value for each sample, or for each place of it.

    Classes are where `class_axis` says. Integers are answers already. Where NaN is among the values there is
    no answer, which is NaN: it differs from all others, itself among them.

    Raises:
        InputError: there is no axis of at least two classes.
    """
    if not output.is_floating_point():
        return output
    axis = class_axis(output.shape)
    if axis is None:
        raise InputError(
            "max_drop compares which class is answered; expected a first output [N, ..., classes], found "
            f"shape {tuple(output.shape)}; give max_bytes instead"
        )
    found = output.argmax(axis)
    unknown = output.isnan().any(axis)
    return torch.where(unknown, torch.nan, found.double()) if unknown.any() else found


def count_changed(exact: Iterable[Tensor], found: Iterable[Tensor]) -> Drop:
    """Return how many answers of `found` differ from those of `exact`, batch by batch."""
    changed = count = 0
    for one, other in zip(exact, found, strict=True):
        changed += int(torch.count_nonzero(one != other))
        count += one.numel()
    return Drop(changed, count)
