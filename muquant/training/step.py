"""One optimisation step: a pure function of the weights, the optimizer's state and the number of the step."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from muquant.data import Dataset
from muquant.errors import InputError
from muquant.training.augmentations import AUGMENTATIONS
from muquant.training.config import TrainingConfig
from muquant.training.methods import METHODS, Batch
from muquant.training.optimizers import build_optimizer
from muquant.training.schedules import learning_rate
from muquant.training.seeds import derive_seed, generator_for


@dataclass(frozen=True)
class StepOutcome:
    """What a step reports.

    Attributes:
        loss: of the batch, before the step.
        correct: correctly classified images of the batch, before the step.
        seen: images in the batch.
    """

    loss: float
    correct: int
    seen: int


class Stepper:
    """Model, optimizer and training data of a run.

    Nothing else carries over from step to step: data order, augmentation and every other draw are derived
    from the seed and the number of the epoch or step.

    Attributes:
        method: makes the loss of a batch.
        steps_per_epoch: whole batches in the data, at least 1.
        steps: of the whole run.
    """

    def __init__(self, model: nn.Module, config: TrainingConfig, dataset: Dataset) -> None:
        self.model = model
        self.optimizer = build_optimizer(model, config)
        self.steps_per_epoch = max(1, len(dataset) // config.batch_size)
        self.steps = config.epochs * self.steps_per_epoch
        self._config = config
        self._dataset = dataset
        self.method = METHODS[config.method](config)
        self._augment = AUGMENTATIONS[config.augment]
        self._device = next(model.parameters()).device
        self._order = torch.empty(0, dtype=torch.int64)
        self._order_epoch = -1

    def learning_rate(self, step: int) -> float:
        """The learning rate of step 0..steps - 1."""
        config = self._config
        return learning_rate(config.schedule, config.lr, step, self.steps, config.warmup)

    def run(self, step: int) -> StepOutcome:
        """Do step 0..steps - 1.

        Raises:
            InputError: the loss is not finite; weights and optimizer are as they were before the step.
        """
        config = self._config
        indices = self._indices(step)
        inputs = self._augment(self._dataset.inputs(indices), generator_for(config.seed, "augment", step))
        inputs = inputs.to(self._device, memory_format=torch.channels_last)
        labels = self._dataset.labels[indices].to(self._device)
        reduced = config.precision == "bf16"
        torch.manual_seed(derive_seed(config.seed, "dropout", step))  # such layers draw from the global one
        self.model.train()
        with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=reduced):
            generator = generator_for(config.seed, "method", step)
            result = self.method.loss(Batch(self.model, inputs, labels, step / self.steps, generator))
        loss = float(result.loss.detach())
        if not math.isfinite(loss):
            raise InputError(self.divergence(step, f"the loss became {loss}"))
        self._descend(result.loss, self.learning_rate(step))
        return StepOutcome(loss, int((result.logits.detach().argmax(1) == labels).sum()), len(indices))

    def divergence(self, step: int, what: str) -> str:
        """The message for a run whose numbers are no longer finite at `step`."""
        rate = self.learning_rate(step)
        return self.stopped(
            step, f"diverged, {what}, learning rate {rate:.3g}; start a new run with a lower lr"
        )

    def stopped(self, step: int, why: str) -> str:
        """The message for a run that cannot go on at `step`; `why` ends with what to do."""
        config = self._config
        return (
            f"training {config.model} on {config.data} stopped at step {step + 1} of {self.steps} "
            f"(epoch {step // self.steps_per_epoch + 1}): {why} (the last good checkpoint is kept)"
        )

    def _descend(self, loss: Tensor, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()

    def _indices(self, step: int) -> Tensor:
        """The images of a step: a slice of the epoch's own permutation."""
        epoch, batch = divmod(step, self.steps_per_epoch)
        if epoch != self._order_epoch:
            order = generator_for(self._config.seed, "order", epoch)
            self._order, self._order_epoch = torch.randperm(len(self._dataset), generator=order), epoch
        start = batch * self._config.batch_size
        return self._order[start : start + self._config.batch_size]
