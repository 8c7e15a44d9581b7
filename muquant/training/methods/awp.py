"""Adversarial weight perturbation: the loss is taken where the weights near by are worst."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn
from torch.func import functional_call

Call = Callable[[Tensor], Tensor]
"""inputs -> outputs of a model"""


def with_worse_weights(model: nn.Module, loss: Callable[[Call], Tensor], size: float) -> Call:
    """Return a model whose matrices and kernels are moved towards a higher loss, each by `size` of its norm.

    Wu, Xia, Wang, "Adversarial Weight Perturbation Helps Robust Generalization", NeurIPS 2020: a flat
    surroundings of the weights makes robustness carry over to other images. The gradients of what is computed
    go to the weights where they are. The model's buffers are left alone while the direction is looked for.

    Args:
        model: in training mode.
        loss: of a model, a scalar.
        size: 0 or more; 0.005 in the paper.
    """
    weights = {name: each for name, each in model.named_parameters() if each.dim() > 1 and each.requires_grad}
    buffers = {name: each.clone() for name, each in model.named_buffers()}
    with torch.enable_grad():
        found = loss(lambda inputs: _called(model, buffers, inputs))
        gradients = torch.autograd.grad(found, list(weights.values()), allow_unused=True)
    moved = {}
    for (name, weight), gradient in zip(weights.items(), gradients, strict=True):
        if gradient is not None and bool(gradient.norm() > 0):
            moved[name] = weight + size * weight.detach().norm() / gradient.norm() * gradient.detach()
    return lambda inputs: _called(model, moved, inputs)


def _called(model: nn.Module, values: Mapping[str, Tensor], inputs: Tensor) -> Tensor:
    output: Tensor = functional_call(model, dict(values), (inputs,))
    return output
