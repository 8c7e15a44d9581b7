"""The mean of the weights that a run has passed through."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import nn

from muquant.training.run.state import copy_tensors


class AveragedWeights:
    """The mean of a model's parameters over the steps from some step on.

    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018, with a
    term for each step instead of one for each epoch. Averaged weights need BatchNorm statistics of their own.

    Args:
        model: whose weights.
        first: 0..steps - 1, the first step after which weights are counted.
        decay: what is left of a step's share after each further step: an exponential average, of all alike
            while there are few. None is their mean.
        estimate_statistics: gives the model, as it is after a step, the BatchNorm statistics of its weights.

    Attributes:
        tensors: the mean, by name; a checkpoint holds it.
    """

    def __init__(
        self,
        model: nn.Module,
        first: int,
        estimate_statistics: Callable[[int], None],
        decay: float | None = None,
    ) -> None:
        self._model, self._first, self._estimate_statistics = model, first, estimate_statistics
        self._least = 0.0 if decay is None else 1 - decay
        self.tensors = {f"average.{name}": each.detach().clone() for name, each in model.named_parameters()}

    def take(self, step: int) -> None:
        """Count the weights as they are after step 0..steps - 1."""
        if step < self._first:
            return
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                share = max(1 / (step - self._first + 1), self._least)
                self.tensors[f"average.{name}"].lerp_(parameter, share)

    @contextmanager
    def in_place(self, step: int) -> Iterator[None]:
        """Give the model the averaged weights meanwhile, if step 0..steps - 1, the last one, counts."""
        if step < self._first:
            yield
            return
        live = {name: tensor.clone() for name, tensor in self._model.state_dict().items()}
        try:
            self.restore(step)
            yield
        finally:
            copy_tensors(live, self._model.state_dict())

    def restore(self, step: int) -> None:
        """Copy the averaged weights over the model's after step 0..steps - 1."""
        mean = {name: self.tensors[f"average.{name}"] for name, _ in self._model.named_parameters()}
        copy_tensors(mean, dict(self._model.named_parameters()))
        self._estimate_statistics(step)
