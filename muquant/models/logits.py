"""Classifiers of any make: the type of their inputs, and the logits in what they return."""

from itertools import chain

import torch
from torch import Tensor, nn

from muquant.base.errors import InputError
from muquant.models.calls import output_tensors


def input_dtype(module: nn.Module) -> torch.dtype:
    """The floating-point type that a module computes in: that of its first parameter or buffer of one."""
    tensors = chain(module.parameters(), module.buffers())
    return next((tensor.dtype for tensor in tensors if tensor.is_floating_point()), torch.float32)


def classifier_logits(output: object, count: int) -> Tensor:
    """The logits [N, classes] in what a classifier returned for `count` images.

    Of several tensors that is the one called "logits", or else the first of floating point. A single logit z
    for each image, [N] or [N, 1], of a classifier that tells class 1 from class 0 becomes two, 0 and z: so it
    must be what a sigmoid is given, not what it returns.

    Raises:
        InputError: there is no tensor in it.
    """
    found = output_tensors(output)
    named = [tensor for name, tensor in found if name.rpartition(".")[2] == "logits"]
    floating = [tensor for _, tensor in found if tensor.is_floating_point()]
    tensors = named or floating or [tensor for _, tensor in found]
    if not tensors:
        raise InputError(
            f"the model's output: expected logits [N, classes], found {type(output).__name__} without a "
            "tensor; attack a classifier"
        )
    logits = tensors[0]
    alone = tuple(logits.shape) in ((count,), (count, 1))
    if alone and logits.is_floating_point():  # integers are classes
        single = logits.reshape(-1)
        return torch.stack([torch.zeros_like(single), single], dim=1)
    return logits
