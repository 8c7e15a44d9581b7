"""Softmax and normalisations."""

import math

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from muquant_onnx.torch_copy.operator import Operator, refuse


def _softmax(node: ir.Node, x: Tensor) -> Tensor:
    return x.softmax(node.attributes.get_int("axis", -1))


def _log_softmax(node: ir.Node, x: Tensor) -> Tensor:
    return x.log_softmax(node.attributes.get_int("axis", -1))


def _epsilon(node: ir.Node, default: float = 1e-5) -> float:
    return node.attributes.get_float("epsilon", default)


def _batch(node: ir.Node, x: Tensor, scale: Tensor, bias: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    if node.attributes.get_int("training_mode", 0):
        raise refuse(node, "training_mode")
    mean, variance = mean.detach(), variance.detach()  # torch has no gradients by them
    return functional.batch_norm(x, mean, variance, scale, bias, False, 0.0, _epsilon(node))


def _instance(node: ir.Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    return functional.group_norm(x, x.shape[1], scale, bias, _epsilon(node))


def _group(node: ir.Node, x: Tensor, scale: Tensor, bias: Tensor) -> Tensor:
    groups = node.attributes.get_int("num_groups")
    if scale.numel() == groups != x.shape[1]:  # up to opset 20 one number for each group
        scale, bias = (each.repeat_interleave(x.shape[1] // groups) for each in (scale, bias))
    return functional.group_norm(x, groups, scale, bias, _epsilon(node))


def _layer(node: ir.Node, x: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    if len(node.outputs) > 1:
        raise refuse(node, "its mean as an output")
    axis = node.attributes.get_int("axis", -1)
    result = functional.layer_norm(x, x.shape[axis:], None, None, _epsilon(node)) * scale
    return result if bias is None else result + bias


def _root_mean_square(node: ir.Node, x: Tensor, scale: Tensor) -> Tensor:
    if len(node.outputs) > 1:
        raise refuse(node, "its mean as an output")
    axes = list(range(node.attributes.get_int("axis", -1) % x.dim(), x.dim()))
    return x * torch.rsqrt(x.square().mean(axes, keepdim=True) + _epsilon(node)) * scale


def _lp(node: ir.Node, x: Tensor) -> Tensor:
    axis, power = node.attributes.get_int("axis", -1), node.attributes.get_int("p", 2)
    norm: Tensor = torch.linalg.vector_norm(x, power, axis, keepdim=True)
    return x / norm


def _local_response(node: ir.Node, x: Tensor) -> Tensor:
    attributes, size = node.attributes, node.attributes.get_int("size")
    squares = x.square().transpose(1, -1)
    sides = ((size - 1) // 2, math.ceil((size - 1) / 2))
    sums = functional.pad(squares, sides).unfold(-1, size, 1).sum(-1).transpose(1, -1)
    alpha, beta = attributes.get_float("alpha", 1e-4), attributes.get_float("beta", 0.75)
    return x / (attributes.get_float("bias", 1.0) + alpha / size * sums) ** beta


def _skip_layer(
    node: ir.Node,
    x: Tensor,
    skip: Tensor,
    scale: Tensor,
    bias: Tensor | None = None,
    own: Tensor | None = None,
) -> tuple[Tensor, ...]:
    """With a sum in front, which is the fourth output."""
    total = x + skip if own is None else x + skip + own
    result = functional.layer_norm(total, total.shape[-1:], scale, bias, _epsilon(node, 1e-12))
    return _with_sum(node, result, total)


def _skip_root_mean_square(
    node: ir.Node, x: Tensor, skip: Tensor, scale: Tensor, own: Tensor | None = None
) -> tuple[Tensor, ...]:
    total = x + skip if own is None else x + skip + own
    factor = torch.rsqrt(total.square().mean(-1, keepdim=True) + _epsilon(node, 1e-12))
    return _with_sum(node, total * factor * scale, total)


def _with_sum(node: ir.Node, result: Tensor, total: Tensor) -> tuple[Tensor, ...]:
    if any(output.uses() or output.is_graph_output() for output in node.outputs[1:3]):
        raise refuse(node, "its mean as an output")
    return (result, result, result, total)[: len(node.outputs)]


OPERATORS: dict[str, Operator] = {
    "BatchNormalization": _batch,
    "GroupNormalization": _group,
    "InstanceNormalization": _instance,
    "LRN": _local_response,
    "LayerNormalization": _layer,
    "LogSoftmax": _log_softmax,
    "LpNormalization": _lp,
    "RMSNormalization": _root_mean_square,
    "SimplifiedLayerNormalization": _root_mean_square,
    "Softmax": _softmax,
    "com.microsoft.SkipLayerNormalization": _skip_layer,
    "com.microsoft.SkipSimplifiedLayerNormalization": _skip_root_mean_square,
}
