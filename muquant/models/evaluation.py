"""Accuracy and logits of a model on a data set, in float32."""

from itertools import chain

import torch
from torch import Tensor, nn

from muquant.data import Dataset
from muquant.models.calls import evaluation_mode
from muquant.models.logits import classifier_logits, input_dtype


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
    dtype = input_dtype(model)
    parts = []
    with torch.no_grad(), evaluation_mode(model):
        for start in range(0, len(dataset), batch_size):
            inputs = dataset.inputs(slice(start, start + batch_size)).to(tensor.device, dtype)
            parts.append(classifier_logits(model(inputs), len(inputs)).float().cpu())
    return torch.cat(parts)
