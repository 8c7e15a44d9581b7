"""Which outputs of a model are answers, and what each of them says."""

import re
from collections.abc import Sequence

from torch import Tensor

_LOGITS = re.compile("logit", re.IGNORECASE)
_NO_CLASSES = re.compile("hidden|state|embed|feature", re.IGNORECASE)


def class_axis(shape: Sequence[int]) -> int | None:
    """Return where the classes of an output are, or None where it has no axis of at least two of them.

    They are the last axis of [N, classes] and [N, places, classes], and axis 1 of what is like pictures,
    [N, classes, height, width].
    """
    axis = 1 if len(shape) > 3 else len(shape) - 1
    return axis if len(shape) >= 2 and shape[axis] >= 2 else None


def answering(names: Sequence[str]) -> set[int]:
    """Return the places of those outputs that look like logits by their names: whatever is called so; else
    the first one, as for `max_drop`, if it is not called a state, an embedding or the like."""
    named = {place for place, name in enumerate(names) if _LOGITS.search(name)}
    return named or {place for place in (0,) if names and not _NO_CLASSES.search(names[place])}


def said(exact: Tensor, found: Tensor) -> tuple[Tensor, Tensor] | None:
    """Return what two floating-point outputs of one shape answer, or None where they are no answers.

    That is the class with the largest value, see `class_axis`. Without classes, where all that the first one
    has lies between 0 and 1, it is whether a value is above one half.
    """
    axis = class_axis(exact.shape)
    if axis is not None:
        return exact.argmax(axis), found.argmax(axis)
    if exact.numel() and bool(((exact >= 0) & (exact <= 1)).all()):
        return exact > 0.5, found > 0.5
    return None
