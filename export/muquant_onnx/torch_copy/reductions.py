"""Sums, means and the like over axes."""

from collections.abc import Callable

import onnx_ir as ir
import torch
from torch import Tensor

from muquant_onnx.torch_copy.operator import Operator, numbers

Over = Callable[[Tensor, list[int], bool], Tensor]
"""(x, axes, whether these are kept with a size of 1) -> x without them."""


def _reduced(over: Over) -> Operator:
    def operator(node: ir.Node, x: Tensor, axes: Tensor | None = None) -> Tensor:
        named = numbers(axes)
        if named is None:
            named = list(node.attributes.get_ints("axes", []))
        if not named:
            if node.attributes.get_int("noop_with_empty_axes", 0):
                return x
            named = list(range(x.dim()))
        kept = bool(node.attributes.get_int("keepdims", 1))
        return over(x, named, kept) if named else x

    return operator


def _product(x: Tensor, axes: list[int], kept: bool) -> Tensor:
    for axis in sorted((axis % x.dim() for axis in axes), reverse=True):
        x = x.prod(axis, keepdim=kept, dtype=x.dtype)
    return x


def _sum(x: Tensor, axes: list[int], kept: bool) -> Tensor:
    return x.sum(axes, keepdim=kept, dtype=x.dtype)


OPERATORS: dict[str, Operator] = {
    "ReduceL1": _reduced(lambda x, axes, kept: x.abs().sum(axes, keepdim=kept)),
    "ReduceL2": _reduced(lambda x, axes, kept: torch.linalg.vector_norm(x, dim=axes, keepdim=kept)),
    "ReduceLogSum": _reduced(lambda x, axes, kept: x.sum(axes, keepdim=kept).log()),
    "ReduceLogSumExp": _reduced(lambda x, axes, kept: x.logsumexp(axes, keepdim=kept)),
    "ReduceMax": _reduced(lambda x, axes, kept: x.amax(axes, keepdim=kept)),
    "ReduceMean": _reduced(lambda x, axes, kept: x.mean(axes, keepdim=kept)),
    "ReduceMin": _reduced(lambda x, axes, kept: x.amin(axes, keepdim=kept)),
    "ReduceProd": _reduced(_product),
    "ReduceSum": _reduced(_sum),
    "ReduceSumSquare": _reduced(lambda x, axes, kept: x.square().sum(axes, keepdim=kept)),
}
