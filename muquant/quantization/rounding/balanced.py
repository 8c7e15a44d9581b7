"""Rounding by the weight alone that tilts no layer's output: each channel keeps its length and its sum."""

import torch
from torch import Tensor

from muquant.format.law import grid_levels
from muquant.format.rows import from_matrix, from_rows, row_chunks, spread, to_matrix, to_rows
from muquant.format.tensor import QuantizedTensor, short_steps
from muquant.quantization.rounding.nearest import Codebook, nearest_codes


def balanced(weight: Tensor, start: QuantizedTensor) -> QuantizedTensor:
    """Return `start` with other steps and codes, so that its errors do not add up from layer to layer.

    Levels of least squared error are shorter than the weight: of a normal one at 3 bits each channel loses a
    thirtieth of its length, and so does what it gives to the next. Steps are chosen so that <q, w> = <w, w>
    for the weights w that share one and what they become, q, as far as steps in 8 bits allow (as is the scale
    of Vargaftik et al., "EDEN", ICML 2022); that costs a thirtieth more squared error. And inputs behind a
    ReLU have a mean, by which the sum of a channel's errors is multiplied: so many of its weights take the
    level on the other side, those first for which that costs least, that the sum is as near to zero as it can
    be (as in Guo et al., "SQuant", ICLR 2022).

    Args:
        weight: float32, any shape.
        start: its nearest levels. In the mapped domain, where the scale is part of the network's function,
            that is returned.
    """
    if start.spec.domain == "mapped":
        return start
    longer = _lengthened(weight, start)
    return _evened(weight, _lengthened(weight, _rounded(weight, longer)))


def _lengthened(weight: Tensor, quantized: QuantizedTensor) -> QuantizedTensor:
    """Fit the steps to the codes so that <q, w> = <w, w>."""
    spec, channels = quantized.spec, quantized.channels
    rows, levels = (to_rows(each, spec, channels) for each in (weight, quantized.levels().float()))
    wanted = torch.linalg.vecdot(rows, rows).double()
    found = torch.linalg.vecdot(rows, levels).double()
    if spec.steps.kind == "tensor":
        wanted, found = wanted.sum(0, keepdim=True), found.sum(0, keepdim=True)
    step = torch.where((found > 0) & (wanted > 0), wanted / found, quantized.step.reshape(-1)).float()
    held = short_steps(step) if spec.shortens(step.numel()) else step
    return QuantizedTensor(spec, quantized.codes, held.reshape(quantized.step.shape), channels)


def _rounded(weight: Tensor, quantized: QuantizedTensor) -> QuantizedTensor:
    """Give each weight its nearest level, with the same steps."""
    spec, channels = quantized.spec, quantized.channels
    rows = nearest_codes(to_rows(weight, spec, channels), quantized.step.reshape(-1, 1), Codebook.of(spec))
    codes = from_rows(rows, spec, quantized.shape, channels).contiguous()
    return QuantizedTensor(spec, codes, quantized.step, channels)


def _evened(weight: Tensor, quantized: QuantizedTensor) -> QuantizedTensor:
    """Move codes to the next level, until the errors of each channel add up to as little as they can."""
    spec, shape, channels = quantized.spec, quantized.shape, quantized.channels
    levels = grid_levels(spec)[: spec.codes].float()
    step = spread(quantized.step, spec, shape, channels).expand(shape)
    matrix, codes, steps = (to_matrix(each, channels) for each in (weight, quantized.codes, step))
    moved = torch.empty_like(codes)
    for part in row_chunks(matrix):
        old = codes[part].int()
        lost = matrix[part] - levels[old] * steps[part]
        total = lost.sum(1, keepdim=True)
        side = total.sign()
        new = (old + side.int()).clamp_(0, spec.codes - 1)
        way = (levels[new] - levels[old]).abs_() * steps[part]
        price = torch.where(way > 0, way - 2 * side * lost, torch.inf)  # of each unit of the way
        order = price.argsort(dim=1, stable=True)
        ordered = way.gather(1, order)
        nearer = ordered.cumsum(1) - ordered / 2 < total.abs()
        moved[part] = torch.where(torch.empty_like(nearer).scatter_(1, order, nearer), new, old)
    return QuantizedTensor(spec, from_matrix(moved, shape, channels).contiguous(), quantized.step, channels)
