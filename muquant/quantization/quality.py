"""How much of a weight is lost, computed a few weights at a time."""

import math

import torch
from torch import Tensor

from muquant.format.law import grid_levels
from muquant.format.rows import CHUNK, spread
from muquant.format.tensor import QuantizedTensor

ALL_LOST = -300.0
"""The ratio, in dB, of what is no number any more: a finite one, below all that is measured."""


def weight_sqnr(weight: Tensor, quantized: QuantizedTensor) -> float | None:
    """Return the signal-to-quantization-noise ratio in dB; None where nothing was lost or all is zero.

    10 log10(sum w^2 / sum (w - q)^2), without the decoded weight in memory.

    Args:
        weight: float32.
        quantized: the same weight in few bits.
    """
    shape = quantized.shape
    levels = grid_levels(quantized.spec).float()
    step = spread(quantized.step, quantized.spec, shape, quantized.channels).expand(shape)
    signal = noise = 0.0
    rows = max(1, CHUNK * shape[0] // max(weight.numel(), 1))
    for part, codes, own in zip(
        *(torch.split(each, rows) for each in (weight, quantized.codes, step)), strict=True
    ):
        error = levels.index_select(0, codes.reshape(-1).int()).reshape(codes.shape).mul_(own).sub_(part)
        noise += _energy(error)
        signal += _energy(part)
    ratio = decibels(signal, noise)
    return ratio if math.isfinite(ratio) else None


def decibels(signal: float, noise: float) -> float:
    """Return 10 log10(signal / noise); infinite where nothing was lost, or there was nothing to lose, and
    `ALL_LOST` where either is NaN or infinite."""
    if not (math.isfinite(signal) and math.isfinite(noise)):
        return ALL_LOST
    return 10 * math.log10(signal / noise) if noise > 0 and signal > 0 else math.inf


def _energy(values: Tensor) -> float:
    return float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2
