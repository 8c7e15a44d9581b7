"""The mu-law and the codebooks built from it.

Source: ITU-T G.711's continuous form, as in Song, Fallon, Li, "Improving Adversarial Robustness in
Weight-quantized Neural Networks".
"""

import math

import torch
from torch import Tensor

from muquant.format.spec import MuLawSpec


def compand(x: Tensor, mu: float) -> Tensor:
    """F(x) = sgn(x) ln(1 + mu |x|) / ln(1 + mu), for x in [-1, 1] of any shape, mu >= 0; mu = 0: identity."""
    if mu == 0:
        return x
    return x.sign() * torch.log1p(mu * x.abs()) / math.log1p(mu)


def expand(y: Tensor, mu: float) -> Tensor:
    """F^-1(y) = sgn(y) ((1 + mu)^|y| - 1) / mu, for y in [-1, 1] of any shape, mu >= 0; mu = 0: identity."""
    if mu == 0:
        return y
    return y.sign() * torch.expm1(y.abs() * math.log1p(mu)) / mu


def expand_slope(y: Tensor, mu: float) -> Tensor:
    """dF^-1(y)/dmu, by which mu is learned; any shape. Zero at y = 0 and |y| = 1."""
    magnitude = y.abs()
    if mu < 1e-4:  # the quotient below loses all digits here; its limit does not
        return y.sign() * magnitude * (magnitude - 1) / 2
    power = torch.exp(magnitude * math.log1p(mu))
    return y.sign() * (magnitude * power / (1 + mu) - (power - 1) / mu) / mu


def positions(spec: MuLawSpec) -> Tensor:
    """Return the spec's positions, float64 [2^bits]."""
    return torch.tensor(spec.positions, dtype=torch.float64)


def grid_levels(spec: MuLawSpec) -> Tensor:
    """Return `k` for each code, int16 [2^bits]: the grid's integer nearest to grid_max F^-1(y), in float64.

    On a grid of all integers halves go to the even neighbour; on one of the odd integers what lies half-way
    between two goes away from zero. This is the codebook: the only numbers, beside the step, that a decoder
    needs.
    """
    y = positions(spec)
    exact = spec.grid_max * expand(y, spec.expansion_mu)
    if spec.level_grid.odd:
        return (y.sign() * (2 * (exact.abs() / 2).floor() + 1)).to(torch.int16)
    return exact.round().to(torch.int16)
