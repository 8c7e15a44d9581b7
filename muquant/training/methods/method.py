"""What a training method is, what it is handed, and what it returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from torch import Generator, Tensor, nn

from muquant.data import Dataset
from muquant.training.options.config import TrainingConfig
from muquant.training.progress import EpochMetrics


@dataclass(frozen=True, eq=False)
class Batch:
    """One step of training.

    Attributes:
        model: in training mode; a method that changes the mode sets it back.
        inputs: float32 [N, C, H, W] in [0, 1], augmented, on the model's device.
        labels: int64 [N], on the same device.
        targets: what a cross-entropy is taken against: the labels, or float32 [N, classes], the share of each
            class, where images are mixed.
        progress: the fraction of the run's steps that are done, at least 0 and below 1.
        carried: float32 like `inputs`, -1 to 1: what the method returned for the same images an epoch ago,
            drawn uniformly at first; None where it carries nothing.
        generator: on the CPU, seeded by the run's seed and the step; the only source of a method's
            randomness, so that a resumed run draws what the uninterrupted one would have drawn.
    """

    model: nn.Module
    inputs: Tensor
    labels: Tensor
    targets: Tensor
    progress: float
    generator: Generator
    carried: Tensor | None = None


@dataclass(frozen=True, eq=False)
class BatchLoss:
    """What a method makes of a batch.

    Attributes:
        loss: a scalar, differentiable: what is minimised.
        logits: [N, classes], from which the training accuracy is counted.
        carried: like the batch's own, for the next epoch; None where there is none.
    """

    loss: Tensor
    logits: Tensor
    carried: Tensor | None = None


@dataclass(frozen=True, eq=False)
class RunView:
    """What a method sees of a run between two epochs, in the first process alone.

    Attributes:
        epoch: epochs done, 0..epochs.
        model: with the weights that it has by now; to be left as it is.
        dataset: the training part.
        added: the images that the method has added so far; None where there are none.
        folder: of the run. Files that the method leaves there, each written whole or not at all, are
            written again where the run was killed before its next checkpoint and is resumed.
        say: tells people in a few words what is going on, where it takes long.
    """

    epoch: int
    model: nn.Module
    dataset: Dataset
    added: Dataset | None
    folder: Path
    say: Callable[[str], None]


class Method:
    """Base of the training methods: how the loss of a batch is made, and what happens between epochs.

    A method keeps nothing from step to step: what it does follows from its arguments alone, so that a run
    can be resumed anywhere. What it carries from epoch to epoch, a value for each value of an image, is in
    the checkpoint.

    Args:
        config: of the run.
        teacher: a network whose answers are learned, on the model's device and in evaluation mode; None
            where there is none.

    Attributes:
        takes_teacher: whether the method knows what to do with one.
    """

    takes_teacher = False

    def __init__(self, config: TrainingConfig, teacher: nn.Module | None = None) -> None:
        self.config, self.teacher = config, teacher

    def initialize(self, model: nn.Module) -> None:
        """Give a new model other weights than its own, where the method wants that; not with `init`."""

    @property
    def carries(self) -> bool:
        """Whether something of each image is carried to the next epoch, see `Batch.carried`."""
        return False

    @property
    def first_judged_epoch(self) -> int:
        """1..epochs, the first one after which `keep` "best" may take the weights."""
        return 1

    def loss(self, batch: Batch) -> BatchLoss:
        """The loss of one batch. It runs under autocast where the precision asks for it."""
        raise NotImplementedError

    def examples(self, run: RunView) -> Dataset | None:
        """Images to train on beside the training part, asked for before each epoch.

        An epoch keeps its number of steps: it draws them, without replacement, from the training part and
        these images together. The checkpoint holds them, so that no epoch that was begun asks again.

        Returns:
            All images to add from now on: `run.added` for the same as before, None for none.
        """
        return run.added

    def finish(self, run: RunView) -> None:
        """Leave in the run's folder what can be said of the finished model, whose weights `run.model` has."""

    def validate(self, model: nn.Module, held_out: Dataset) -> Mapping[str, float]:
        """Measure more than the accuracy after an epoch: values for fields of `EpochMetrics`.

        Args:
            model: to be left as it is.
            held_out: the held-out part of the training split.
        """
        return {}

    def fault(self, record: EpochMetrics) -> str | None:
        """Why the run cannot go on after an epoch, and what to do; None where it can."""
        return None
