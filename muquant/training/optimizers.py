"""The optimizers of training. Their learning rate is set anew at each step, from the schedule."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim import Optimizer

from muquant.registry import look_up

if TYPE_CHECKING:
    from muquant.training.config import TrainingConfig


def build_optimizer(model: nn.Module, config: "TrainingConfig") -> Optimizer:
    """The optimizer of a run, over all parameters of `model`.

    Weight decay is for matrices and kernels alone: on a bias or a BatchNorm scale it only does harm.

    Raises:
        InputError: its name is unknown.
    """
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in parameters if p.dim() < 2], "weight_decay": 0.0},
    ]
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
