"""The optimizers of training. Their learning rate is set anew at each step, from the schedule."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim import Optimizer

from muquant.fake_quantize import MuLawFakeQuantize
from muquant.registry import look_up

if TYPE_CHECKING:
    from muquant.training.config import TrainingConfig


def build_optimizer(model: nn.Module, config: "TrainingConfig") -> Optimizer:
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
    groups = [
        {"params": [p for p in rest if p.dim() >= 2], "weight_decay": config.weight_decay, "rate": 1.0},
        {"params": [p for p in rest if p.dim() < 2], "weight_decay": 0.0, "rate": 1.0},
    ]
    if config.qat is not None:
        groups.append({"params": [*learned.values()], "weight_decay": 0.0, "rate": config.qat.rate})
    return look_up("optimizer", config.optimizer, OPTIMIZERS)(groups, config)


def adamw(groups: list[dict[str, object]], config: "TrainingConfig") -> Optimizer:
    """Adam with decoupled weight decay; it does not use `config.momentum`."""
    return torch.optim.AdamW(groups, lr=config.lr, fused=True)


def sgd(groups: list[dict[str, object]], config: "TrainingConfig") -> Optimizer:
    """Stochastic gradient descent, with Nesterov's momentum where the momentum is above 0."""
    nesterov = config.momentum > 0
    return torch.optim.SGD(groups, lr=config.lr, momentum=config.momentum, nesterov=nesterov, fused=True)


OPTIMIZERS: dict[str, Callable[[list[dict[str, object]], "TrainingConfig"], Optimizer]] = {
    "adamw": adamw,
    "sgd": sgd,
}
