"""What quantization does to a layer's output, as its inputs' moments tell.

Of a layer that has q in the place of w it is the error e x + w d, with e = w - q, x what the compressed
network shows the layer and x + d what the float one does; without a drift d is zero. Weights and errors are
[blocks, rows, inputs], see `Moments.blocks`, in the unit of the moments.
"""

import torch
from torch import Tensor

from muquant.quantization.moments import Moments


def mean_error(weight: Tensor, error: Tensor, moments: Moments) -> Tensor:
    """The mean of the output's error, [blocks, rows]; a bias can make up for it."""
    mean = _along(error, moments.mean)
    return mean if moments.drift is None else mean + _along(weight, moments.drift.mean)


class OutputError:
    """The mean square of the error of a layer's output.

    Args:
        weight: w.
        moments: of what the layer sees, with the second moment of the drift.
    """

    def __init__(self, weight: Tensor, moments: Moments) -> None:
        self._weight, self._moments = weight, moments
        self._across: Tensor | None = None
        self._rest: Tensor | float = 0.0
        signal, drift = self._power(weight), moments.drift
        if drift is not None:
            assert drift.second is not None
            self._across = 2 * (weight @ drift.cross)
            self._rest = ((weight @ drift.second) * weight).sum(2)
            signal = signal + (self._across * weight).sum(2) + self._rest
        self.signal = float(signal.double().sum())
        """The mean square of the float network's output itself, summed over all rows."""

    def of(self, error: Tensor, shift: Tensor | None = None) -> float:
        """Of an e, summed over all rows, where `shift` [blocks, rows] is added to the output."""
        power = self._power(error) + self._rest
        if self._across is not None:
            power = power + (self._across * error).sum(2)
        if shift is not None:
            power = power + shift * (shift - 2 * mean_error(self._weight, error, self._moments))
        return float(power.double().sum())

    def _power(self, rows: Tensor) -> Tensor:
        return self._moments.power(rows).reshape(rows.shape[:2])


def moved(weight: Tensor, seen: Moments, fit: Moments | None, judge: OutputError) -> Tensor:
    """Return the weight that, on what the compressed network shows, comes nearest to what the float one
    computes: w + w E[d x^T] E[x x^T]^-1, [blocks, rows, inputs].

    It is the target of Li et al., "GPTAQ: Efficient Finetuning-Free Quantization for Asymmetric Calibration",
    ICML 2025. Only so much of the way is gone as is best on held-out samples, none where that does not help,
    or nothing drifts.

    Args:
        weight: w.
        seen: moments that codes are fitted to, about the mean where a bias makes up for it.
        fit: the same about zero, from which that bias is taken; None where there is none.
        judge: by which the way is judged.
    """
    if seen.drift is None:
        return weight
    change = torch.cholesky_solve((weight @ seen.drift.cross).mT, torch.linalg.cholesky(seen.shrunk)).mT
    none, half, whole = (
        judge.of(error, None if fit is None else mean_error(weight, error, fit))
        for error in (0 * change, -change / 2, -change)
    )
    bend = 2 * (none - 2 * half + whole)  # the error is a parabola along the way
    share = (none - whole + bend) / (2 * bend) if bend > 0 else float(whole < none)
    return weight + min(max(share, 0.0), 1.0) * change


def _along(rows: Tensor, vector: Tensor) -> Tensor:
    return (rows @ vector[:, :, None]).squeeze(2)
