"""How far a quantized weight is from the float one as a matrix, by measures that need no input."""

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.sparse.linalg import eigsh
from torch import Tensor

_SMALL = 128


@dataclass(frozen=True)
class Norms:
    """||A||_p of a linear map: how much longer than x, measured by ||.||_p, A x can be.

    Attributes:
        one: p = 1, the largest absolute column sum.
        two: p = 2, the largest singular value.
        inf: p = infinity, the largest absolute row sum.
    """

    one: float
    two: float
    inf: float

    def transposed(self) -> "Norms":
        """The norms of the transposed map."""
        return Norms(self.inf, self.two, self.one)


def matrix_norms(matrix: Tensor) -> Norms:
    """Return the norms of `matrix` [outputs, inputs], in float64 and exact but for rounding."""
    exact = matrix.detach().double()
    if not exact.any():
        return Norms(0.0, 0.0, 0.0)
    magnitude = exact.abs()
    return Norms(float(magnitude.sum(0).max()), _largest_singular_value(exact), float(magnitude.sum(1).max()))


def _largest_singular_value(matrix: Tensor) -> float:
    """The root of the largest eigenvalue of A A^T, or of A^T A where that is smaller.

    Squaring costs digits of the small singular values only. Small ones by LAPACK, others by Lanczos
    iterations to full accuracy: an iteration on the square is cheaper than one on a long matrix.
    """
    short = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T
    gram = short @ short.T
    if len(gram) <= _SMALL:
        return math.sqrt(float(torch.linalg.eigvalsh(gram)[-1]))
    start = np.random.default_rng(0).standard_normal(len(gram))
    return math.sqrt(float(eigsh(gram.numpy(), k=1, v0=start, return_eigenvectors=False)[0]))
