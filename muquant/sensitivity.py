"""How far a quantized weight is from the float one, by measures that need no input."""

import math

import numpy as np
from scipy.sparse.linalg import svds
from torch import Tensor

from muquant.tensor import to_matrix

_SMALL = 128


def sqnr(reference: Tensor, quantized: Tensor) -> float:
    """Signal-to-quantization-noise ratio in dB, 10 log10(sum w^2 / sum (w - q)^2); inf for no noise."""
    noise = float((reference.double() - quantized.double()).square().sum())
    signal = float(reference.double().square().sum())
    if noise == 0:
        return math.inf
    return 10 * math.log10(signal / noise) if signal else -math.inf


def spectral_norm(delta: Tensor, channel_axis: int = 0) -> float:
    """||dW||_2, the largest singular value of dW as a matrix [channels, inputs].

    This is the paper's Lipschitz constant of the quantization error, exact for linear layers. Computed in
    float64: small matrices by LAPACK, large ones by Lanczos iterations to full accuracy.
    """
    matrix = to_matrix(delta, channel_axis).double().numpy()
    if not matrix.any():
        return 0.0
    if min(matrix.shape) <= _SMALL:
        return float(np.linalg.norm(matrix, ord=2))
    start = np.random.default_rng(0).standard_normal(min(matrix.shape))
    return float(svds(matrix, k=1, v0=start, return_singular_vectors=False)[0])
