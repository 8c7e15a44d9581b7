"""Losses that an attack raises: each takes logits [N, classes] and labels [N], and returns [N]."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

Loss = Callable[[Tensor, Tensor], Tensor]


def ce(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy. Its gradient vanishes where the logits are large: never report it alone."""
    return cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max over j != y of z_j, minus z_y: positive where the image is misclassified (Carlini, Wagner 2017)."""
    chosen = labels[:, None]
    others = logits.scatter(1, chosen, -torch.inf)
    return others.amax(1) - logits.gather(1, chosen)[:, 0]


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """Difference of logits ratio, the margin divided by z_(1) - z_(3) (Croce, Hein 2020, eq. 6).

    It changes neither with a shift nor with a scale of the logits. With two classes, which have no z_(3), it
    is the margin.
    """
    if logits.shape[1] < 3:
        return margin(logits, labels)
    top = logits.topk(3, dim=1).values
    return margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """Targeted DLR, (z_t - z_y) / (z_(1) - (z_(3) + z_(4)) / 2) (Croce, Hein 2020, eq. 7).

    With three classes the divisor is z_(1) - z_(3), with two it is 1.
    """
    gap = logits.gather(1, targets[:, None])[:, 0] - logits.gather(1, labels[:, None])[:, 0]
    classes = logits.shape[1]
    if classes < 3:
        return gap
    top = logits.topk(min(classes, 4), dim=1).values
    return gap / (top[:, 0] - top[:, 2:].mean(1) + 1e-12)


LOSSES: dict[str, Loss] = {"ce": ce, "margin": margin, "dlr": dlr}
