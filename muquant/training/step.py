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
from muquant.training.qat import Quantization, decoded_once, penalty
from muquant.training.schedules import learning_rate
from muquant.training.seeds import derive_seed, generator_for
from muquant.training.state import create_state, live_tensors
from muquant.training.training_set import TrainingSet


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
        data: what batches are drawn from.
        steps: of the whole run.
    """

    def __init__(self, model: nn.Module, config: TrainingConfig, dataset: Dataset) -> None:
        self.model = model
        self.method = METHODS[config.method](config)
        self.data = TrainingSet(dataset, config.batch_size, config.seed)
        self.steps = config.epochs * self.data.steps_per_epoch
        self.quantization = Quantization(model, config.qat, self.steps) if config.qat else None
        self.optimizer = build_optimizer(model, config)
        create_state(self.optimizer)
        self._config = config
        self._augment = AUGMENTATIONS[config.augment]
        self._device = next(model.parameters()).device

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that a step or an epoch changes, by name."""
        return {**live_tensors(self.model, self.optimizer), **self.data.tensors()}

    @property
    def first_judged_epoch(self) -> int:
        """1..epochs, the first one whose end finds the model as it will be deployed, not still in float."""
        first_step = self.quantization.first if self.quantization else 0
        return first_step // self.data.steps_per_epoch + 1

    def begin_epoch(self, epoch: int) -> None:
        """Let the method add images before epoch 0..epochs - 1."""
        data = self.data
        data.added = self.method.examples(self.model, data.part, data.added, epoch)

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
        inputs, labels = self.data.batch(step)
        inputs = self._augment(inputs, generator_for(config.seed, "augment", step))
        inputs = inputs.to(self._device, memory_format=torch.channels_last)
        labels = labels.to(self._device)
        if self.quantization is not None:
            self.quantization.before(step)
        torch.manual_seed(derive_seed(config.seed, "dropout", step))  # such layers draw from the global one
        self.model.train()
        generator = generator_for(config.seed, "method", step)
        reduced = config.precision == "bf16"
        with decoded_once(self.model):
            with torch.autocast(self._device.type, dtype=torch.bfloat16, enabled=reduced):
                result = self.method.loss(Batch(self.model, inputs, labels, step / self.steps, generator))
            total = result.loss if config.qat is None else result.loss + penalty(self.model, config.qat)
        loss = float(total.detach())
        if not math.isfinite(loss):
            raise InputError(self.divergence(step, f"the loss became {loss}"))
        self._descend(total, self.learning_rate(step))
        return StepOutcome(loss, int((result.logits.detach().argmax(1) == labels).sum()), len(labels))

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
            f"(epoch {step // self.data.steps_per_epoch + 1}): {why} (the last good checkpoint is kept)"
        )

    def _descend(self, loss: Tensor, lr: float) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = lr * group["rate"]
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
