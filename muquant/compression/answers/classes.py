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


def said(name: str, exact: Tensor, found: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return what two floating-point outputs of one shape answer, or None where they look like no logits.

    An output looks like logits where it is called logits, scores, probabilities or classes; where it is
    [N, classes] and not called a state, an embedding or the like; or where `exact` has probabilities that add
    up to 1 over its classes, see `class_axis`. The answer is the class with the largest value. Without
    classes, where all that `exact` has lies between 0 and 1, it is whether a value is above one half.
    """
    axis, probable = class_axis(exact.shape), exact.numel() and bool(((exact >= 0) & (exact <= 1)).all())
    if axis is None:
        return (exact > 0.5, found > 0.5) if probable else None
    flat = exact.dim() == 2 and not _NO_CLASSES.search(name)
    if flat or _CLASSES.search(name) or (probable and bool(((exact.sum(axis) - 1).abs() < _ONE).all())):
        return exact.argmax(axis), found.argmax(axis)
    return None
