"""Which vectors an operator multiplies its weight by, as its other operand has them.

A new operator is one function here and one line in `OPERANDS`.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from muquant.compression.calibration.operators import (
    Draw,
    drawn,
    patches,
    product_vectors,
    transposed_patches,
)
from muquant_onnx.from_onnx.find import Use
from muquant_onnx.torch_copy.geometry import Geometry, padded, transposed_pads

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
    geometry = Geometry(use.node, x.shape[2:], use.view.sizes[2:])
    groups, wide = use.node.attributes.get_int("group", 1), padded(x, geometry.pads)
    return patches(wide, geometry.kernel, geometry.strides, geometry.dilations, groups, draw)


def _transposed_convolution(use: Use, x: Tensor, draw: Draw) -> Tensor:
    geometry = Geometry(use.node, x.shape[2:], use.view.sizes[2:])
    kernel, strides, dilations = geometry.kernel, geometry.strides, geometry.dilations
    cut, groups = transposed_pads(use.node, x.shape[2:], kernel), use.node.attributes.get_int("group", 1)
    return transposed_patches(x, kernel, strides, cut, dilations, groups, draw)


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
"""Operator -> input that is the weight -> its vectors. Weights of others are rounded by themselves alone."""
