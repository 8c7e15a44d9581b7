"""The mu-law and the codebooks built from it.

Source: ITU-T G.711's continuous form, as in Song, Fallon, Li, "Improving Adversarial Robustness in
Weight-quantized Neural Networks".
"""

import math
from functools import cache

import torch
from torch import Tensor

from muquant.spec import MuLawSpec


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


@cache
def _positions(bits: int, levels: str) -> Tensor:
    n = (1 << bits) - 1 if levels == "mid-rise" else (1 << (bits - 1)) - 1
    if levels == "mid-rise":
        return torch.arange(-n, n + 1, 2, dtype=torch.float64) / n
    return torch.cat((torch.arange(-n, n + 1, dtype=torch.float64) / n, torch.zeros(1, dtype=torch.float64)))


def positions(spec: MuLawSpec) -> Tensor:
    """Return y for each code, float64 [2^bits] in [-1, 1]: where the code lies in the companded domain.

    Mid-rise: y_i = (2 i - n) / n with n = 2^bits - 1. Mid-tread: y_i = (i - n) / n with n = 2^(bits - 1) - 1,
    and the spare code at zero.
    """
    return _positions(spec.bits, spec.levels)


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
