"""The mean of the weights that a run has passed through."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from muquant.data import Dataset
from muquant.evaluation import evaluation_mode
from muquant.training.state import copy_tensors

BATCH_SIZE, STATISTICS_IMAGES = 500, 5000
"""Images from which the statistics of BatchNorm are estimated for averaged weights."""


class AveragedWeights:
    """The mean of a model's parameters over the steps from some step on.

    Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018, with a
    term for each step instead of one for each epoch. Averaged weights need BatchNorm statistics of their own;
    they are estimated from images of the training part, evenly spread over it, as they are.

    Args:
        model: whose weights.
        images: the training part.
        first: 0..steps - 1, the first step after which weights are counted.

    Attributes:
        tensors: the mean, by name; a checkpoint holds it.
    """

    def __init__(self, model: nn.Module, images: Dataset, first: int) -> None:
        self._model, self._first = model, first
        count = min(len(images), STATISTICS_IMAGES)
        self._images = images.subset(torch.arange(count) * len(images) // count)
        self.tensors = {f"average.{name}": each.detach().clone() for name, each in model.named_parameters()}

    def take(self, step: int) -> None:
        """Count the weights as they are after step 0..steps - 1."""
        if step < self._first:
            return
        with torch.no_grad():
            for name, parameter in self._model.named_parameters():
                self.tensors[f"average.{name}"].lerp_(parameter, 1 / (step - self._first + 1))

    @contextmanager
    def in_place(self, step: int) -> Iterator[None]:
        """Give the model the averaged weights meanwhile, if step 0..steps - 1 is one that counts."""
        live = {name: tensor.clone() for name, tensor in self._model.state_dict().items()}
        try:
            if step >= self._first:
                self.restore()
            yield
        finally:
            copy_tensors(live, self._model.state_dict())

    def restore(self) -> None:
        """Copy the averaged weights over the model's, with statistics of their own."""
        mean = {name: self.tensors[f"average.{name}"] for name, _ in self._model.named_parameters()}
        copy_tensors(mean, dict(self._model.named_parameters()))
        torch.manual_seed(0)  # dropout draws from the global generator
        with evaluation_mode(self._model):
            update_bn(self._batches(), self._model, next(iter(mean.values())).device)

    def _batches(self) -> Iterator[Tensor]:
        """Parts of about the same size, so that none is of one image alone."""
        parts = -(-len(self._images) // BATCH_SIZE)
        for indices in torch.arange(len(self._images)).chunk(parts):
            yield self._images.inputs(indices)
