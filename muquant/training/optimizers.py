"""The optimizers of training. Their learning rate is set anew at each step, from the schedule."""

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch.optim import Optimizer

if TYPE_CHECKING:
    from muquant.training.options.config import TrainingConfig


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
