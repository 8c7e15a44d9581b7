"""Learned rounding of a layer: codes and steps that no single change of either makes better."""

from torch import Tensor

from muquant.format.tensor import QuantizedTensor
from muquant.quantization.moments import Moments
from muquant.quantization.rounding.problem import RoundingProblem, refit

BLOCK = 64
"""Columns between two updates of all others."""
PASSES = 6
"""Most passes over the weight; nearly all that there is to gain is gained in two or three."""
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
    codes, step = problem.blocks(start.codes).clone(), start.step
    for _ in range(PASSES):
        changed = _sweep(problem, codes, step)
        step = refit(problem, codes, step)
        if changed < SETTLED:
            break
    return problem.quantized(codes, step)


def _sweep(problem: RoundingProblem, codes: Tensor, step: Tensor) -> float:
    """Give every weight its best level, one column after the other; return the share of codes that changed.

    `codes` is changed in place. With d the diagonal of H and g = ((q - w) H)_j, the best level of weight j is
    the one nearest to q_j - g / d_j.
    """
    steps, second = problem.steps(step), problem.second
    values = problem.levels(codes) * steps
    slope = (values - problem.target) @ second
    diagonal = second.diagonal(dim1=1, dim2=2)
    changed = 0
    for begin in range(0, codes.shape[2], BLOCK):
        part = slice(begin, begin + BLOCK)
        near, before, own = slope[:, :, part].clone(), values[:, :, part].clone(), second[:, part, part]
        for place in range(near.shape[2]):
            j = begin + place
            old = values[:, :, j].clone()
            code = problem.nearest(old - near[:, :, place] / diagonal[:, None, j], steps[:, :, j])
            changed += int((code != codes[:, :, j]).sum())
            codes[:, :, j] = code
            values[:, :, j] = problem.levels(code) * steps[:, :, j]
            near += (values[:, :, j] - old)[:, :, None] * own[:, None, place]
        slope += (values[:, :, part] - before) @ second[:, part]
    return changed / codes.numel()
