"""How far a quantized weight is from the float one, by measures that need no input."""

import math

import torch
from torch import Tensor

from muquant.tensor import to_matrix


def sqnr(reference: Tensor, quantized: Tensor) -> float:
    """Signal-to-quantization-noise ratio in dB, 10 log10(sum w^2 / sum (w - q)^2); inf for no noise."""
    noise = float((reference.double() - quantized.double()).square().sum())
    signal = float(reference.double().square().sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def spectral_norm(delta: Tensor, channel_axis: int = 0) -> float:
    """||dW||_2, the largest singular value of dW as a matrix [channels, inputs].

    This is the paper's Lipschitz constant of the quantization error, exact for linear layers. From the
    eigenvalues of the smaller Gram matrix, in float64.
    """
    matrix = to_matrix(delta, channel_axis).double()
    if matrix.numel() == 0:
        return 0.0
    if matrix.shape[0] > matrix.shape[1]:
        matrix = matrix.T
    return math.sqrt(max(float(torch.linalg.eigvalsh(matrix @ matrix.T)[-1]), 0.0))
