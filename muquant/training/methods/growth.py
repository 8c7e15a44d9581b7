"""What certified training adds to its loss while epsilon rises: intervals shall neither grow nor lean."""

import torch
from torch import Tensor
from torch.nn import functional

from muquant.certification.operations import Relu
from muquant.certification.trace import Traced

_LEAST = 1e-12

IMAGES = 64
"""The first images of a batch, over which means are taken: more cost time and tell the same."""

TOLERANCE = 0.5
"""What ratios fall below before they cost anything: the value of the paper."""


def growth_penalty(logits: Traced) -> Tensor:
    """By how much intervals in front of ReLUs are wider than the input's, and how one-sided ReLUs are.

    Shi et al., "Fast Certified Robust Training with Short Warmup", NeurIPS 2021, section 4.2: with r the
    mean radius in front of a ReLU, r_0 that of the input, c centres, and t the tolerance, the mean over ReLUs
    of max(0, t - r_0 / r) / t, and of max(0, t - s) / t for two ratios s, the smaller part over the larger
    one: of the mean |c| and of the variance of c, each over neurons that are surely active and surely not.

    Returns:
        A scalar, float32, at least 0.
    """
    order = logits.in_order()
    first = _radius(*_ends(order[0]))
    costs = []
    for node in order:
        if not isinstance(node.operation, Relu):
            continue
        lower, upper = _ends(node.inputs[0])
        centre = (lower + upper) / 2
        active, idle = (lower > 0).float(), (upper < 0).float()
        spread = (centre - centre.mean()).square()
        costs.append(_short(first / _radius(lower, upper).clamp(min=_LEAST)))
        costs.append(_short(_evenness((centre * active).mean(), -(centre * idle).mean())))
        costs.append(_short(_evenness((spread * active).sum(), (spread * idle).sum())))
    if not costs:
        return torch.zeros((), device=logits.device)
    return torch.stack(costs).sum() * 3 / len(costs)


def _ends(value: Traced) -> tuple[Tensor, Tensor]:
    return value.range.lower[:IMAGES].float(), value.range.upper[:IMAGES].float()


def _radius(lower: Tensor, upper: Tensor) -> Tensor:
    return (upper - lower).mean() / 2


def _evenness(one: Tensor, other: Tensor) -> Tensor:
    """The smaller over the larger one; 1 where both are next to nothing, as there is nothing to balance."""
    return (torch.minimum(one, other) + _LEAST) / (torch.maximum(one, other) + _LEAST)


def _short(ratio: Tensor) -> Tensor:
    return functional.relu(TOLERANCE - ratio) / TOLERANCE
