"""A network that a run learns from: whether it can be asked."""

import copy

import torch
from torch import nn

from muquant.base.errors import InputError, first_line
from muquant.data import Dataset
from muquant.training.methods import METHODS
from muquant.training.options.config import TrainingConfig


def ready_teacher(
    teacher: nn.Module, config: TrainingConfig, dataset: Dataset, device: torch.device
) -> nn.Module:
    """Return a copy of a teacher on a device, in evaluation mode, that asks for no gradients of its weights.

    Raises:
        InputError: the method learns from labels alone, the TRADES loss is asked for as well, or the teacher
            does not answer an image of the data with a logit for each class.
    """
    if not METHODS[config.method].takes_teacher:
        takers = ", ".join(name for name, method in METHODS.items() if method.takes_teacher)
        raise InputError(
            f"a teacher with method {config.method}, which learns from labels; leave it out, or choose one "
            f"of: {takers}"
        )
    if config.adversarial is not None and config.adversarial.trades:
        raise InputError("a teacher and trades: both say what the loss is; leave one of them out")
    ready = copy.deepcopy(teacher).eval().requires_grad_(requires_grad=False).to(device)
    expected, images = [1, len(dataset.classes)], dataset.inputs(slice(1)).to(device)
    try:
        with torch.no_grad():
            answer = ready(images)
    except Exception as error:
        raise InputError(
            f"the teacher does not take images {list(images.shape)} ({first_line(error)}); name a network of "
            "the same data"
        ) from error
    if not isinstance(answer, torch.Tensor) or list(answer.shape) != expected:
        found = list(answer.shape) if isinstance(answer, torch.Tensor) else type(answer).__name__
        raise InputError(
            f"the teacher: expected logits {expected} of one image, found {found}; name a network of the "
            "same classes"
        )
    return ready
