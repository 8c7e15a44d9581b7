"""One optimisation step: a pure function of the weights, the optimizer's state and the number of the step."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch.optim import Optimizer

from muquant.base.errors import InputError, first_line
from muquant.base.processes import Processes
from muquant.base.registry import look_up
from muquant.base.seeds import derive_seed, generator_for
from muquant.compression.batch_norm import batch_norms, mean_over_batches
from muquant.data import Dataset
from muquant.quantization.fake_quantize import MuLawFakeQuantize
from muquant.training.augmentations import AUGMENTATIONS, cut_and_mix
from muquant.training.methods import METHODS, Batch, BatchLoss, RunView
from muquant.training.optimizers import OPTIMIZERS, ParameterGroups
from muquant.training.options.config import TrainingConfig
from muquant.training.progress import OnNote
from muquant.training.run.average import AveragedWeights
from muquant.training.run.carried import Carried
from muquant.training.run.quantized import Quantization, decoded_once, penalty
from muquant.training.run.state import create_state, live_tensors
from muquant.training.run.training_set import TrainingSet
from muquant.training.schedules import learning_rate

STATISTICS_STEPS = 20
"""The last steps whose batches BatchNorm statistics of averaged weights are estimated from."""


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

    Nothing else carries over from step to step, but what the method carries of each image: data order,
    augmentation and every other draw are derived from the seed and the number of the epoch or step.

    Attributes:
        model: what is trained.
        processes: the processes that share the run.
        method: makes the loss of a batch.
        data: what batches are drawn from.
        carried: what the method carries of each image; None where it carries nothing.
        steps: of the whole run.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainingConfig,
        dataset: Dataset,
        processes: Processes | None = None,
        teacher: nn.Module | None = None,
    ) -> None:
        self.model = model
        self.processes = processes or Processes(config.device)
        self.method = METHODS[config.method](config, teacher)
        self.data = TrainingSet(dataset, config.batch_size, config.seed)
        whole = torch.empty(min(config.batch_size, len(dataset)))
        self.processes.part_of(whole)  # refuses what does not divide
        self.carried = Carried(dataset, config.seed, self.processes) if self.method.carries else None
        self.steps = config.epochs * self.data.steps_per_epoch
        self.quantization = Quantization(model, config.qat, self.steps) if config.qat else None
        self.optimizer = build_optimizer(model, config)
        create_state(self.optimizer)
        self._config = config
        self._augment = AUGMENTATIONS[config.augment]
        self._fast: nn.Module = torch.compile(model) if config.compile else model  # type: ignore[assignment]

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor that a step or an epoch changes, by name."""
        carried = {} if self.carried is None else {"carried": self.carried.values}
        return {**live_tensors(self.model, self.optimizer), **self.data.tensors(), **carried}

    def average(self) -> AveragedWeights | None:
        """What averages the weights, none of them in float where they are trained for few bits."""
        share = self._config.average
        if share is None:
            return None
        first = min(round((1 - share) * self.steps), self.steps - 1)
        quantized = self.quantization.first if self.quantization else 0
        first, decay = max(first, quantized), self._config.average_decay
        return AveragedWeights(self.model, first, self.estimate_statistics, decay)

    def estimate_statistics(self, step: int) -> None:
        """Estimate BatchNorm's running statistics anew for the model's weights as they are.

        They are the mean of those of the batches of the last steps up to `step`, shuffled, augmented and
        attacked as in training: those of bare images do not fit a network that was trained with cutout.
        """
        statistics = _statistics(self.model)
        if not statistics:
            return
        with mean_over_batches(self.model):
            for each in range(max(step + 1 - STATISTICS_STEPS, 0), step + 1):
                self._loss(self._batch(each))
        self.processes.average(statistics)

    @property
    def first_judged_epoch(self) -> int:
        """1..epochs, the first one whose end finds the model as it will be deployed, not still in float."""
        first_step = self.quantization.first if self.quantization else 0
        return max(first_step // self.data.steps_per_epoch + 1, self.method.first_judged_epoch)

    def begin_epoch(self, epoch: int, folder: Path, say: OnNote) -> None:
        """Let the method add images before epoch 0..epochs - 1."""
        if self.quantization is not None:
            self.quantization.before(epoch * self.data.steps_per_epoch)  # it sees the model of the next step
        added = None
        if self.processes.rank == 0:
            with self._view(epoch, folder, say) as view:
                added = self.method.examples(view)
        self.data.added = self.processes.share(added)

    def finish(self, folder: Path, say: OnNote) -> None:
        """Let the method look at the model in the end."""
        if self.processes.rank == 0:
            with self._view(self._config.epochs, folder, say) as view:
                self.method.finish(view)

    @contextmanager
    def _view(self, epoch: int, folder: Path, say: OnNote) -> Iterator[RunView]:
        """What the method sees; weights are decoded once meanwhile."""
        with torch.no_grad(), decoded_once(self.model):
            yield RunView(epoch, self.model, self.data.part, self.data.added, folder, say)

    def learning_rate(self, step: int) -> float:
        """The learning rate of step 0..steps - 1."""
        config = self._config
        return learning_rate(config.schedule, config.lr, step, self.steps, config.warmup)

    def run(self, step: int) -> StepOutcome:
        """Do step 0..steps - 1.

        Raises:
            InputError: the loss is not finite; weights and optimizer are as they were before the step.
        """
        if self.quantization is not None:
            self.quantization.before(step)
        batch = self._batch(step)
        result = self._loss(batch)
        loss, logits = result.loss, result.logits.detach()
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        correct = (logits.argmax(1) == batch.labels).sum()
        figures = torch.stack((loss.detach().float(), correct.float()))
        self.processes.average((figures, *self._gradients(), *_statistics(self.model)))
        mean_loss, mean_correct = figures.tolist()
        if not math.isfinite(mean_loss):
            raise InputError(self.divergence(step, f"the loss became {mean_loss}"))
        for group in self.optimizer.param_groups:
            group["lr"] = self.learning_rate(step) * group["rate"]
        self.optimizer.step()
        if self.carried is not None and result.carried is not None:
            self.carried.keep(self.data.indices(step), result.carried)
        count = self.processes.count
        return StepOutcome(mean_loss, round(mean_correct * count), len(batch.labels) * count)

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

    def _batch(self, step: int) -> Batch:
        """This process' share of a step's images, augmented as in the whole batch."""
        seed, processes = self._config.seed, self.processes
        inputs, labels = self.data.batch(step)
        inputs, targets = self._augment(inputs, generator_for(seed, "augment", step)), labels
        if self._config.cutmix is not None:
            mix = self._config.cutmix, derive_seed(seed, "cutmix", step)
            inputs, targets = cut_and_mix(inputs, labels, len(self.data.part.classes), *mix)
        inputs = processes.part_of(inputs).to(processes.device, memory_format=torch.channels_last)
        labels, targets = (processes.part_of(each).to(processes.device) for each in (labels, targets))
        own = f" of process {processes.rank}" if processes.rank else ""  # each draws its own numbers
        torch.manual_seed(derive_seed(seed, "dropout" + own, step))  # such layers draw from the global one
        generator, carried = generator_for(seed, "method" + own, step), None
        if self.carried is not None:
            carried = processes.part_of(self.carried.of(self.data.indices(step))).to(processes.device)
        return Batch(self._fast.train(), inputs, labels, targets, step / self.steps, generator, carried)

    def _loss(self, batch: Batch) -> BatchLoss:
        """What the method makes of a batch, and what the quantizer adds to its loss."""
        reduced, options = self._config.precision == "bf16", self._config.qat
        with decoded_once(self.model):
            with torch.autocast(batch.inputs.device.type, dtype=torch.bfloat16, enabled=reduced), compiling():
                result = self.method.loss(batch)
            if options is None:
                return result
            return replace(result, loss=result.loss + penalty(self.model, options))

    def _gradients(self) -> list[Tensor]:
        return [each.grad for each in self.model.parameters() if each.grad is not None]


@contextmanager
def compiling() -> Iterator[None]:
    """Say in one line that torch.compile does not work here, which shows when a model first runs."""
    try:
        yield
    except TorchDynamoException as error:
        raise InputError(
            f"torch.compile does not work here ({first_line(error)}); install a C++ compiler, or leave "
            f"--compile out"
        ) from error


def _statistics(model: nn.Module) -> list[Tensor]:
    """The running statistics of a model, which every process takes from its own images."""
    pairs = [(norm.running_mean, norm.running_var) for norm in batch_norms(model).values()]
    return [tensor for pair in pairs for tensor in pair if tensor is not None]


def build_optimizer(model: nn.Module, config: TrainingConfig) -> Optimizer:
    """The optimizer of a run, over all parameters of `model`.

    Weight decay is for matrices and kernels alone: on a bias or a BatchNorm scale it only does harm, and it
    would draw the scales of fake quantization to 1. Each group has a "rate", by which the schedule's learning
    rate is multiplied: for scale and mu the one of `config.qat`.

    Raises:
        InputError: its name is unknown.
    """
    quantizers = [module for module in model.modules() if isinstance(module, MuLawFakeQuantize)]
    learned = {id(p): p for module in quantizers for p in module.parameters() if p.requires_grad}
    rest = [p for p in model.parameters() if p.requires_grad and id(p) not in learned]
    groups: ParameterGroups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": config.weight_decay, "rate": 1.0},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0, "rate": 1.0},
    ]
    if config.qat is not None:
        groups.append({"params": [*learned.values()], "weight_decay": 0.0, "rate": config.qat.rate})
    return look_up("optimizer", config.optimizer, OPTIMIZERS)(groups, config.lr, config.momentum)
