"""Learned rounding of a layer: codes and steps that no single change of either makes better."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from muquant.format.tensor import QuantizedTensor
from muquant.quantization.moments import Moments
from muquant.quantization.rounding.problem import ColumnRounder, RoundingProblem, refit

BLOCK = 32
"""Columns between two updates of all others."""
PASSES = 4
"""Most passes over the weight; two more gain less than 0.01 dB."""
SETTLED = 1e-4
"""The pass is the last that changes less than this share of the codes."""


def reconstructed(weight: Tensor, start: QuantizedTensor, moments: Moments) -> QuantizedTensor:
    """Improve codes and steps in turn, as long as the error of the layer's output falls.

    The objective is that of Nagel et al., "Up or Down? Adaptive Rounding for Post-Training Quantization",
    ICML 2020. With H = E[x x^T] at hand it is a quadratic form, so no gradient descent on relaxed codes is
    needed: given all other codes of a row, the best level of one weight is the level nearest to a known
    number (coordinate descent, as in Behdin et al., "QuantEase", 2023). All rows go at once. The steps are
    fitted to the codes in between. The error never rises, whatever `start` is.

    Args:
        weight: float32, any shape.
        start: some quantized form of it.
        moments: of its layer's inputs.
    """
    problem = RoundingProblem.of(weight, start, moments)
    levels, step = problem.levels(start.codes), start.step
    slope = problem.slope(levels, step)
    for _ in range(PASSES):
        changed = _sweep(problem, levels, step, slope)
        step, slope = refit(problem, levels, step, slope)
        if changed < SETTLED:
            break
    return problem.quantized(levels, step)


def _sweep(problem: RoundingProblem, levels: Tensor, step: Tensor, slope: Tensor) -> float:
    """Give every weight its best level, one column after the other; return the share of levels that changed.

    `levels` and their slope are changed in place. With d the diagonal of H and g the slope, the best level of
    weight j is the one nearest to q_j - g_j / d_j.
    """
    steps = problem.steps(step)
    rounder = ColumnRounder(problem.spec, steps)
    second: NDArray[np.float32] = problem.second.numpy()
    shares = 1 / problem.second.diagonal(dim1=1, dim2=2).numpy()
    found: NDArray[np.float32] = levels.numpy()
    wanted, moved = (np.empty_like(found[:, 0]) for _ in range(2))
    changed = 0
    for begin in range(0, found.shape[1], BLOCK):
        part = slice(begin, begin + BLOCK)
        old = levels[:, part].clone()
        before = (old * (steps[:, part] if steps.shape[1] > 1 else steps)).numpy()
        values = np.empty_like(before)
        near = slope[:, part].clone().numpy()
        for place in range(near.shape[1]):
            j = begin + place
            np.multiply(near[:, place], shares[:, j, None], out=wanted)
            np.subtract(before[:, place], wanted, out=wanted)
            rounder(wanted, j, found[:, j], values[:, place])
            np.subtract(values[:, place], before[:, place], out=moved)
            near[:, place + 1 :] += second[:, j, j + 1 : begin + BLOCK, None] * moved[:, None]
        new = int((old != levels[:, part]).sum())
        if new:
            slope.baddbmm_(problem.second[:, :, part], torch.from_numpy(values - before))
        changed += new
    return changed / levels.numel()
