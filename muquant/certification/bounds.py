"""Lower bounds of the margins between a label's logit and the others: one function, one line each."""

from collections.abc import Callable

import torch
from torch import Tensor

from muquant.certification.operations import Affine, Operation, Range, Sum
from muquant.certification.trace import Traced

Bound = Callable[[Traced, Tensor], Tensor]
"""(logits [N, classes], labels int64 [N]) -> lower bounds of z_label - z_class, [N, classes]"""


def interval(logits: Traced, labels: Tensor) -> Tensor:
    """Of intervals alone (Gowal et al. 2018, IBP); the last affine layers are taken together with the margin.

    It can be differentiated by the network's weights.
    """
    return _carried_back(logits, labels, lambda operation: isinstance(operation, Affine | Sum))


def crown_ibp(logits: Traced, labels: Tensor) -> Tensor:
    """Linear bounds, carried back to the input through relaxed ReLUs between intervals (Zhang et al. 2018,
    CROWN; 2020, CROWN-IBP). At least those of intervals alone."""
    return torch.maximum(_carried_back(logits, labels, lambda _: True), interval(logits, labels))


BOUNDS: dict[str, Bound] = {"ibp": interval, "crown-ibp": crown_ibp}


def _carried_back(logits: Traced, labels: Tensor, through: Callable[[Operation], bool]) -> Tensor:
    classes = logits.shape[1]
    eye = torch.eye(classes, dtype=logits.dtype, device=logits.device)
    rows = {logits: (eye[labels] - eye[:, None]).contiguous()}  # [classes, N, classes]
    total = torch.zeros(classes, len(labels), dtype=logits.dtype, device=logits.device)
    for node in reversed(logits.in_order()):
        coefficients = rows.pop(node, None)
        if coefficients is None:  # in front of where bounds end
            continue
        if node.operation is None or not through(node.operation):
            total = total + _least(coefficients, node.range)
            continue
        found, bias = node.operation.backward(coefficients, [each.range for each in node.inputs])
        total = total + bias
        for each, part in zip(node.inputs, found, strict=True):
            rows[each] = rows[each] + part if each in rows else part
    return total.T


def _least(rows: Tensor, values: Range) -> Tensor:
    """The least value of linear functions [S, N, ...] in a box, [S, N]."""
    return (rows.clamp(min=0) * values.lower + rows.clamp(max=0) * values.upper).flatten(2).sum(2)
