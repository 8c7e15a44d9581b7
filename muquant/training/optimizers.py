"""The optimizers of training. Their learning rate is set anew at each step, from the schedule."""

from collections.abc import Callable

import torch
from torch.optim import Optimizer

ParameterGroups = list[dict[str, object]]
"""As torch's optimizers take them."""


def adamw(groups: ParameterGroups, lr: float, momentum: float) -> Optimizer:
    """Adam with decoupled weight decay; it does not use the momentum."""
    return torch.optim.AdamW(groups, lr=lr, fused=True)


def sgd(groups: ParameterGroups, lr: float, momentum: float) -> Optimizer:
    """Stochastic gradient descent, with Nesterov's momentum where the momentum is above 0."""
    return torch.optim.SGD(groups, lr=lr, momentum=momentum, nesterov=momentum > 0, fused=True)


OPTIMIZERS: dict[str, Callable[[ParameterGroups, float, float], Optimizer]] = {"adamw": adamw, "sgd": sgd}
"""Name -> (groups, learning rate, momentum) -> optimizer"""
