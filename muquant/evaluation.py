"""Accuracy and logits of a model on a data set, in float32."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from muquant.data import Dataset


def evaluate(model: nn.Module, dataset: Dataset, *, batch_size: int = 500) -> float:
    """The fraction of the images that the model classifies correctly, 0..1.

    Args:
        model: takes [N, C, H, W] in [0, 1]; it is put into evaluation mode meanwhile.
        dataset: the images and labels.
        batch_size: images at a time.
    """
    predicted = logits(model, dataset, batch_size=batch_size).argmax(1)
    return int((predicted == dataset.labels).sum()) / len(dataset)


def logits(model: nn.Module, dataset: Dataset, *, batch_size: int = 500) -> Tensor:
    """The model's outputs, float32 [N, classes] on the CPU, computed in batches without gradients.

    Args:
        model: takes [N, C, H, W] in [0, 1]; it is put into evaluation mode meanwhile.
        dataset: the images.
        batch_size: images at a time.
    """
    tensor = next(chain(model.parameters(), model.buffers()), torch.empty(0))
    with torch.no_grad(), evaluation_mode(model):
        parts = [
            model(dataset.inputs(slice(start, start + batch_size)).to(tensor.device)).float().cpu()
            for start in range(0, len(dataset), batch_size)
        ]
    return torch.cat(parts)


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and every module of it back into its own mode afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training
