"""What a run reports while it goes on, and what it leaves behind: plain values."""

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class TrainingProgress:
    """Where a run stands after a step. The last step of an epoch is reported after its validation.

    Attributes:
        epoch: 1..epochs, the one that the step belongs to.
        epochs: of the run.
        step: 1..steps, steps done.
        steps: of the run.
        loss: mean over the epoch so far.
        lr: learning rate of the step.
        last_epoch: what the last finished epoch measured; None before the first has ended.
        seconds_left: an estimate, from the steps done since the run was started or resumed.
    """

    epoch: int
    epochs: int
    step: int
    steps: int
    loss: float
    lr: float
    last_epoch: "EpochMetrics | None"
    seconds_left: float


OnTrainingProgress = Callable[[TrainingProgress], None]

OnNote = Callable[[str], None]
"""Told in a few words, again and again, what a method is doing between two epochs, where that takes long."""


@dataclass(frozen=True)
class EpochMetrics:
    """A line of `metrics.jsonl`.

    Attributes:
        epoch: 1 for the first.
        train_loss: mean over the epoch's steps.
        train_accuracy: 0..1, of the images that the method trains on while the weights were moving.
        validation_accuracy: 0..1, of the held-out part, in float32; None where nothing is held out.
        lr: learning rate of the epoch's last step.
        seconds: of training, without validation.
        robust_accuracy: 0..1, of held-out images under a short attack, or of those that certified training
            certifies; None where the method measures none.
        trained_attack_accuracy: 0..1, likewise under the attack of adversarial training itself, or under a
            short one where certified training attacks images as well.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_accuracy: float | None
    lr: float
    seconds: float
    robust_accuracy: float | None = None
    trained_attack_accuracy: float | None = None
