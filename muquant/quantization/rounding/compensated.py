"""Error compensation: each column is rounded so that it makes up for the errors of the columns before it."""

import numpy as np
import torch
from torch import Tensor

from muquant.format.tensor import QuantizedTensor
from muquant.quantization.moments import Moments
from muquant.quantization.rounding.problem import ColumnRounder, RoundingProblem, refit

BLOCK = 32
"""Columns between two looks at the errors of all earlier ones."""


def compensated(weight: Tensor, start: QuantizedTensor, moments: Moments) -> QuantizedTensor:
    """Round `weight` column by column with the steps of `start`, then fit the steps to the codes.

    Frantar et al., "GPTQ: Accurate Post-Training Quantization for Generative Pre-trained Transformers", ICLR
    2023, in the form of Chee et al., "QuIP", NeurIPS 2023, which needs no inverse: with E[x x^T] = U D U^T, U
    unit upper triangular, a column k is moved by the errors of those in front of it times the column k of U,
    the best that it can do about them. The columns with the most powerful inputs come first. Nothing in this
    asks for uniform levels: here they are companded.

    Args:
        weight: float32, any shape.
        start: some quantized form of it.
        moments: of its layer's inputs.
    """
    problem = RoundingProblem.of(weight, start, moments)
    order, factor = moments.factor
    steps = problem.steps(start.step)
    rounder = ColumnRounder(problem.spec, _ordered(steps, order) if steps.shape[1] > 1 else steps)
    wanted = _ordered(problem.target, order)
    errors, levels = torch.empty_like(wanted), torch.empty_like(wanted)
    upper, target, lost, found = (each.numpy() for each in (factor, wanted, errors, levels))
    values = np.empty_like(target[:, 0])
    inputs = target.shape[1]
    for begin in range(0, inputs, BLOCK):
        end = min(begin + BLOCK, inputs)
        moved = target[:, begin:end].copy()
        moved += (factor[:, :begin, begin:end].mT @ errors[:, :begin]).numpy()
        for j in range(begin, end):
            rounder(moved[:, j - begin], j, found[:, j], values)
            np.subtract(target[:, j], values, out=lost[:, j])
            moved[:, j - begin + 1 :] += upper[:, j, j + 1 : end, None] * lost[:, None, j]
    levels = _ordered(levels, order.argsort(dim=1))
    step, _ = refit(problem, levels, start.step, problem.slope(levels, start.step))
    return problem.quantized(levels, step)


def _ordered(columns: Tensor, order: Tensor) -> Tensor:
    """[blocks, inputs, rows] with its columns in the order [blocks, inputs]."""
    if len(order) == 1:
        return columns[:, order[0]]
    return columns.gather(1, order[:, :, None].expand(columns.shape))
