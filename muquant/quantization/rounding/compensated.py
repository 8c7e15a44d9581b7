"""Error compensation: each column is rounded so that it makes up for the errors of the columns before it."""

import torch
from torch import Tensor

from muquant.format.tensor import QuantizedTensor
from muquant.quantization.moments import Moments
from muquant.quantization.rounding.problem import RoundingProblem, refit

BLOCK = 128
"""Columns between two updates of all later ones."""


def compensated(weight: Tensor, start: QuantizedTensor, moments: Moments) -> QuantizedTensor:
    """Round `weight` column by column with the steps of `start`, then fit the steps to the codes.

    Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR
    2023: with H = E[x x^T] and the upper Cholesky factor U of its inverse, the error e of a column j moves
    the columns k behind it by -e U_jk / U_jj, the best that they can do about it. The columns with the most
    powerful inputs come first. Nothing in this asks for uniform levels: here they are companded.

    Args:
        weight: float32, any shape.
        start: some quantized form of it.
        moments: of its layer's inputs.
    """
    problem = RoundingProblem.of(weight, start, moments)
    order = problem.second.diagonal(dim1=1, dim2=2).argsort(dim=1, descending=True)
    factor = _factor(problem.second, order)
    values = _ordered(problem.target, order).clone()
    steps = _ordered(problem.steps(start.step), order)
    codes = torch.empty_like(values, dtype=torch.uint8)
    inputs = values.shape[2]
    for begin in range(0, inputs, BLOCK):
        end = min(begin + BLOCK, inputs)
        errors = torch.empty_like(values[:, :, begin:end])
        for j in range(begin, end):
            column, step = values[:, :, j], steps[:, :, j]
            codes[:, :, j] = problem.nearest(column, step)
            error = (column - problem.levels(codes[:, :, j]) * step) / factor[:, j, j, None]
            errors[:, :, j - begin] = error
            values[:, :, j + 1 : end] -= error[:, :, None] * factor[:, None, j, j + 1 : end]
        values[:, :, end:] -= errors @ factor[:, begin:end, end:]
    codes = _ordered(codes, order.argsort(dim=1))
    return problem.quantized(codes, refit(problem, codes, start.step))


def _ordered(rows: Tensor, order: Tensor) -> Tensor:
    """The columns of [blocks, rows, inputs] in the order [blocks, inputs]."""
    return rows.gather(2, order[:, None].expand(rows.shape))


def _factor(second: Tensor, order: Tensor) -> Tensor:
    """The upper Cholesky factor of the inverse of `second`, its rows and columns in another order."""
    matrix = _ordered(_ordered(second, order).transpose(1, 2), order)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(matrix))
    factor: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return factor
