"""Which outputs of a model look like logits, and what each of them says."""

import re
from collections.abc import Sequence

from torch import Tensor

_CLASSES = re.compile("logit|score|prob|class", re.IGNORECASE)
_NO_CLASSES = re.compile("hidden|state|embed|feature|cache", re.IGNORECASE)
_ONE = 1e-2
"""How far the sum of probabilities may be from 1, as floats of 16 bits are."""


def class_axis(shape: Sequence[int]) -> int | None:
    """Return where the classes of an output are, or None where it has no axis of at least two of them.

    They are the last axis of [N, classes] and [N, places, classes], and axis 1 of what is like pictures,
    [N, classes, height, width].
    """
    axis = 1 if len(shape) > 3 else len(shape) - 1
    return axis if len(shape) >= 2 and shape[axis] >= 2 else None


def classes_of(name: str, exact: Tensor) -> int | None:
    """Return the axis of classes of a floating-point output that looks like logits or probabilities of them;
    None where it looks like neither.

    An output looks like logits where it is called logits, scores, probabilities or classes; where it is
    [N, classes] and not called a state, an embedding or the like; or where `exact` has probabilities that add
    up to 1 over its classes, see `class_axis`.
    """
    axis = class_axis(exact.shape)
    if axis is None:
        return None
    flat = exact.dim() == 2 and not _NO_CLASSES.search(name)
    return axis if flat or _CLASSES.search(name) or adds_up(exact, axis) else None


def adds_up(exact: Tensor, axis: int) -> bool:
    """Whether values are probabilities over the classes along `axis`."""
    return are_probable(exact) and bool(((exact.sum(axis) - 1).abs() < _ONE).all())


def are_probable(exact: Tensor) -> bool:
    """Whether there are values, and all of them lie between 0 and 1."""
    return bool(exact.numel()) and bool(((exact >= 0) & (exact <= 1)).all())


def said(name: str, exact: Tensor, found: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return what two floating-point outputs of one shape answer, or None where they look like no logits.

    The answer is the class with the largest value, see `classes_of`. Without classes, where all that `exact`
    has lies between 0 and 1, it is whether a value is above one half.
    """
    axis = classes_of(name, exact)
    if axis is not None:
        return exact.argmax(axis), found.argmax(axis)
    if class_axis(exact.shape) is None and are_probable(exact):
        return exact > 0.5, found > 0.5
    return None
