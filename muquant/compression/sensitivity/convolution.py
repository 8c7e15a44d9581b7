"""Norms of a convolution as what it is: a linear map from all of its input to all of its output."""

import math
from collections.abc import Callable

import torch
from scipy.linalg import eigh_tridiagonal
from torch import Tensor, nn

from muquant.compression.sensitivity.calls import linear_part
from muquant.compression.sensitivity.norms import Norms

TOLERANCE = 1e-2
"""Where the search for ||A||_2 stops: the residual ||A^T A v - s^2 v|| <= TOLERANCE s^2. So s is within 0.5 %
of a singular value. It is never above the largest, to which random starts have led it within 1 %."""

FEWEST_STEPS, MOST_STEPS = 20, 200

LinearMap = Callable[[Tensor], Tensor]


def convolution_norms(module: nn.Module, weight: Tensor, input_shape: tuple[int, ...]) -> Norms:
    """Return the norms of the convolution with `weight`, without its bias, on inputs of one size.

    Stride, padding, dilation, groups and transposition are the module's. The norms are those of its dense
    matrix, output values by input values, which is never made.

    p = 1 and infinity: a row of the matrix holds each tap that falls inside the input once, so the
    convolution with |weight| of ones gives the absolute sums of all rows, and its transpose those of all
    columns: exact. Where padding repeats the input ("circular", "reflect", "replicate") taps can meet in one
    element, and opposite ones cancel; then these sums are upper bounds. They are still exact for "circular"
    where the input is no smaller than the kernel, and for p = infinity where some output meets no padding.

    p = 2: Lanczos iterations on A^T A, which are power iterations that keep what they have passed (Golub,
    Kahan, 1965); a lower bound, see `TOLERANCE`.

    Args:
        module: a convolution, or a transposed one, of 1 to 3 dimensions.
        weight: in the shape of the module's.
        input_shape: (channels, length), (channels, height, width) or so on.
    """
    if not weight.any():
        return Norms(0.0, 0.0, 0.0)
    forward, backward, start, ends = _linear_map(module, weight.detach().double().abs(), input_shape)
    rows, columns = forward(torch.ones_like(start)), backward(torch.ones_like(ends))
    forward, backward, start, _ = _linear_map(module, weight.detach().float(), input_shape)
    start = torch.randn(start.shape, generator=torch.Generator().manual_seed(0))
    two = largest_singular_value(lambda x: backward(forward(x)), start)
    return Norms(float(columns.max()), two, float(rows.max()))


def largest_singular_value(square: LinearMap, start: Tensor) -> float:
    """Return the largest singular value of A, to `TOLERANCE`, from x -> A^T A x alone; 0 for a map of zeros.

    By hand: scipy's `eigsh` refuses a map of zeros and one of a single input.

    Args:
        square: takes and returns tensors of the shape of `start`.
        start: the first vector, drawn at random.
    """
    vector = start.flatten() / start.norm()
    basis = torch.empty(0, len(vector))
    diagonal: list[float] = []
    beside: list[float] = []
    for step in range(1, MOST_STEPS + 1):
        basis = torch.cat([basis, vector[None]])
        image = square(vector.view_as(start)).flatten()
        diagonal.append(float(image @ vector))
        for _ in range(2):  # once leaves rounding errors that grow with every step
            image = image - basis.T @ (basis @ image)
        length = float(image.norm())
        values, vectors = eigh_tridiagonal(diagonal, beside)
        residual = length * abs(float(vectors[-1, -1]))
        if residual <= (TOLERANCE if step >= FEWEST_STEPS else 1e-6) * values[-1]:
            break
        beside.append(length)
        vector = image / length
    return math.sqrt(max(float(values[-1]), 0.0))


def _linear_map(
    module: nn.Module, weight: Tensor, input_shape: tuple[int, ...]
) -> tuple[LinearMap, LinearMap, Tensor, Tensor]:
    """Return x -> A x, y -> A^T y, and an input and an output, for a batch of one."""
    apply = linear_part(module, weight)
    inputs = torch.zeros(1, *input_shape, dtype=weight.dtype, requires_grad=True)
    outputs = apply(inputs)

    def backward(y: Tensor) -> Tensor:  # the gradient of a linear map is the same for all x
        (x,) = torch.autograd.grad(outputs, inputs, y, retain_graph=True)
        return x

    return torch.no_grad()(apply), backward, inputs.detach(), outputs.detach()
