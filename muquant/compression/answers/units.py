"""Which numbers of an output are of one unit, as the boxes and the scores of a detector are not."""

import torch
from torch import Tensor

_DIFFER = 4.0
"""How many times as powerful as their mean, in geometric terms, units have to be to be told apart."""


def unit_axis(exact: Tensor) -> int | None:
    """Return the axis along which a floating-point output's numbers are of different units, or None where
    they are all of one.

    It is the second or the last axis, whichever has powers that differ more, where the mean power is at least
    four times the geometric mean: one figure for all would say nothing of the weaker ones.

    Args:
        exact: of any shape, finite; its first axis is samples, where it has one.
    """
    best, apart = None, _DIFFER
    for axis in sorted({1, exact.dim() - 1} & set(range(1, exact.dim()))):
        if exact.shape[axis] < 2 or not exact.numel():
            continue
        power = powers(exact, axis)
        power = power[power > 0]
        if len(power) < 2:
            continue
        differ = float(power.mean() / power.log().mean().exp())
        if differ >= apart:
            best, apart = axis, differ
    return best


def powers(values: Tensor, axis: int | None) -> Tensor:
    """Return the sums of squares along `axis`, float64 [units]; [1] where there is one unit."""
    square = values.double().square()
    if axis is None:
        return square.sum().reshape(1)
    return square.movedim(axis, 0).flatten(1).sum(1)


def balanced(signal: Tensor, noise: Tensor) -> float:
    """Return the mean over units of noise / signal, each at most 1: what is lost of a unit is no more than
    all of it. A unit without signal counts where it has noise.

    Args:
        signal: power of each unit, float64 [units].
        noise: likewise, of the error.
    """
    share = torch.where(
        signal > 0, noise / signal.clamp(min=torch.finfo(torch.float64).tiny), 1.0 * (noise > 0)
    )
    return float(share.nan_to_num(1.0, 1.0).clamp(max=1).mean())
