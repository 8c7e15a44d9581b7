"""Which vectors an operator multiplies its weight by, as its other operand has them.

A new operator is one function here and one line in `OPERANDS`.
"""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from muquant.compression.calibration.operators import (
    Draw,
    drawn,
    padded,
    patches,
    product_vectors,
    transposed_patches,
)
from muquant_onnx.from_onnx.find import Use

VectorsOf = Callable[[Use, Tensor, Draw], Tensor | None]
"""(use of a weight, the other operand as float32, draw) -> what the weight is multiplied by, drawn from
it: float32 [blocks, n, inputs], inputs and blocks of channels in the order in which the operator sees them;
None where the weight is not multiplied by such."""


def vectors(use: Use, operand: Tensor, draw: Draw) -> Tensor | None:
    """Return what the weight of `use` is multiplied by, see `VectorsOf`."""
    found = OPERANDS.get(use.kind, {}).get(use.index)
    return None if found is None else found(use, operand, draw)


def _right_of_matmul(use: Use, x: Tensor, draw: Draw) -> Tensor:
    return product_vectors(x, use.view.sizes[:-2], draw)


def _left_of_matmul(use: Use, x: Tensor, draw: Draw) -> Tensor:
    return product_vectors(x.mT if x.dim() > 1 else x, use.view.sizes[:-2], draw)


def _right_of_fused(use: Use, x: Tensor, draw: Draw) -> Tensor | None:
    return None if _is("transBatchA", use) else _right_of_matmul(use, _turned("transA", use, x), draw)


def _left_of_fused(use: Use, x: Tensor, draw: Draw) -> Tensor | None:
    return None if _is("transBatchB", use) else _left_of_matmul(use, _turned("transB", use, x), draw)


def _right_of_gemm(use: Use, x: Tensor, draw: Draw) -> Tensor:
    return drawn(_turned("transA", use, x), draw)[None]


def _left_of_gemm(use: Use, x: Tensor, draw: Draw) -> Tensor:
    return drawn(_turned("transB", use, x).mT, draw)[None]


def _rows(use: Use, x: Tensor, draw: Draw) -> Tensor:
    """Of an operator that multiplies all that its operand's last axis holds."""
    return product_vectors(x, (), draw)


def _convolution(use: Use, x: Tensor, draw: Draw) -> Tensor:
    kernel, stride, dilation, pads = _geometry(use)
    how = use.node.attributes.get_string("auto_pad", "NOTSET")
    if how.startswith("SAME"):
        sizes = zip(x.shape[2:], kernel, stride, dilation, strict=True)
        total = [
            max((math.ceil(size / step) - 1) * step + (width - 1) * apart + 1 - size, 0)
            for size, width, step, apart in sizes
        ]
        pads = _shared_out(total, more_behind=how == "SAME_UPPER")
    sides = [side for before, behind in reversed(pads) for side in (before, behind)]
    groups = use.node.attributes.get_int("group", 1)
    return patches(padded(x, sides), kernel, stride, dilation, groups, draw)


def _transposed_convolution(use: Use, x: Tensor, draw: Draw) -> Tensor:
    kernel, stride, dilation, pads = _geometry(use)
    attributes = use.node.attributes
    extra = attributes.get_ints("output_padding", [0] * len(kernel))
    how, wanted = attributes.get_string("auto_pad", "NOTSET"), attributes.get_ints("output_shape", [])
    if wanted or how.startswith("SAME"):
        sizes = wanted[-len(kernel) :] or [
            size * step for size, step in zip(x.shape[2:], stride, strict=True)
        ]
        geometry = zip(x.shape[2:], sizes, kernel, stride, dilation, extra, strict=True)
        total = [
            max((size - 1) * step + more + (width - 1) * apart + 1 - size_after, 0)
            for size, size_after, width, step, apart, more in geometry
        ]
        pads = _shared_out(total, more_behind=how == "SAME_UPPER")
    cut = [(before, behind - more) for (before, behind), more in zip(pads, extra, strict=True)]
    groups = attributes.get_int("group", 1)
    return transposed_patches(x, kernel, stride, cut, dilation, groups, draw)


def _geometry(use: Use) -> tuple[Sequence[int], Sequence[int], Sequence[int], list[tuple[int, int]]]:
    """Kernel, strides, dilations, and what is padded before and behind along each axis."""
    attributes, kernel = use.node.attributes, use.view.sizes[2:]
    ones = [1] * len(kernel)
    pads = attributes.get_ints("pads", [0] * 2 * len(kernel))
    if attributes.get_string("auto_pad", "NOTSET") != "NOTSET":
        pads = [0] * 2 * len(kernel)
    sides = list(zip(pads[: len(kernel)], pads[len(kernel) :], strict=True))
    return kernel, attributes.get_ints("strides", ones), attributes.get_ints("dilations", ones), sides


def _shared_out(total: Sequence[int], *, more_behind: bool) -> list[tuple[int, int]]:
    """Padding before and behind, which differ by one where it is odd."""
    halves = [(each // 2, each - each // 2) for each in total]
    return halves if more_behind else [(more, less) for less, more in halves]


def _einsum(use: Use, x: Tensor, draw: Draw) -> Tensor | None:
    """Of two terms: letters of the weight that the result lacks are summed over, and are in the other."""
    left, _, result = use.node.attributes.get_string("equation", "").replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != 2 or not result:
        return None
    own, other = terms[use.index], terms[1 - use.index]
    summed = [letter for letter in own if letter not in result]
    kept = [letter for letter in own if letter in result]
    blocks = [letter for letter in kept if letter in other]
    if not kept or kept[: len(blocks)] != blocks or not {*summed} <= {*other}:
        return None
    rest = [letter for letter in dict.fromkeys(other) if letter in result and letter not in own]
    into = "".join([*rest, *blocks, *summed])
    dots = "..." if "..." in other else ""
    sizes = dict(zip(own, use.view.sizes, strict=True))
    seen = torch.einsum(f"{other}->{dots}{into.replace('.', '')}", x)
    inputs = math.prod(sizes[letter] for letter in summed)
    rows = seen.reshape(-1, math.prod(sizes[letter] for letter in blocks), inputs)
    return drawn(rows, draw).transpose(0, 1)


def _is(name: str, use: Use) -> bool:
    return bool(use.node.attributes.get_int(name, 0))


def _turned(name: str, use: Use, x: Tensor) -> Tensor:
    return x.mT if _is(name, use) and x.dim() > 1 else x


_GEMM: dict[int, VectorsOf] = {0: _left_of_gemm, 1: _right_of_gemm}
_FUSED: dict[int, VectorsOf] = {0: _left_of_fused, 1: _right_of_fused}
OPERANDS: dict[str, dict[int, VectorsOf]] = {
    "Attention": {1: _rows},
    "Conv": {1: _convolution},
    "ConvTranspose": {1: _transposed_convolution},
    "Einsum": {0: _einsum, 1: _einsum},
    "FusedConv": {1: _convolution},
    "FusedGemm": _GEMM,
    "FusedMatMul": _FUSED,
    "GRU": {1: _rows},
    "Gemm": _GEMM,
    "LSTM": {1: _rows},
    "MatMul": {0: _left_of_matmul, 1: _right_of_matmul},
    "RNN": {1: _rows},
    "TransposeMatMul": _FUSED,
}
"""Operator -> input that is the weight -> its vectors. Weights of others go to their nearest levels."""
