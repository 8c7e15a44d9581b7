"""Levels of class robustness: the weaker a class, the more seed samples it gets."""

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from muquant.training.feedback.config import FeedbackConfig

LEVELS = ("high", "medium", "low")


def class_levels(class_margins: Sequence[float] | Tensor, config: FeedbackConfig) -> tuple[str, ...]:
    """The level of each class.

    The number of "low" classes is rounded up, that of "high" ones down, so that in doubt a class gets the
    more samples: 1 low and 1 medium of 2 classes; 2, 1 and no high one of 3; 5, 3 and 2 of 10. Of classes
    with equal margins the first counts as the weakest.

    Args:
        class_margins: one for each class, at least 0; infinite ones are the most robust.
        config: the shares.
    """
    count = len(class_margins)
    close = 1e-9  # 0.07 * 100 is 7.000000000000001, and means 7
    low = math.ceil(config.low_share * count - close)
    high = math.floor(config.high_share * count + close)
    weakest_first: list[Any] = torch.as_tensor(class_margins).argsort(stable=True).tolist()
    levels = ["medium"] * count
    for label in weakest_first[:low]:
        levels[label] = "low"
    for label in weakest_first[count - high :]:
        levels[label] = "high"
    return tuple(levels)
