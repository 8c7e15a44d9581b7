"""What a training method is handed, and what it returns."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Generator, Tensor, nn

if TYPE_CHECKING:
    from muquant.training.config import TrainingConfig


@dataclass(frozen=True, eq=False)
class Batch:
    """One step of training.

    Attributes:
        model: in training mode; a method that changes the mode sets it back.
        inputs: float32 [N, C, H, W] in [0, 1], augmented, on the model's device.
        labels: int64 [N], on the same device.
        config: of the run.
        generator: on the CPU, seeded by the run's seed and the step; the only source of a method's
            randomness, so that a resumed run draws what the uninterrupted one would have drawn.
    """

    model: nn.Module
    inputs: Tensor
    labels: Tensor
    config: "TrainingConfig"
    generator: Generator


@dataclass(frozen=True, eq=False)
class BatchLoss:
    """What a method makes of a batch.

    Attributes:
        loss: a scalar, differentiable: what is minimised.
        logits: [N, classes], from which the training accuracy is counted.
    """

    loss: Tensor
    logits: Tensor


Method = Callable[[Batch], BatchLoss]
"""A training method: the loss of one batch. It runs under autocast where the precision asks for it."""
