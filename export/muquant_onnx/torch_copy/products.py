"""Matrix products and convolutions."""

from collections.abc import Callable

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from muquant_onnx.torch_copy.geometry import Geometry, padded, transposed_pads
from muquant_onnx.torch_copy.operator import Operator, plain, refuse

_CONVOLVE: dict[int, Callable[..., Tensor]] = {
    1: functional.conv1d,
    2: functional.conv2d,
    3: functional.conv3d,
}
_TRANSPOSED: dict[int, Callable[..., Tensor]] = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


def _gemm(node: ir.Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    attributes = node.attributes
    a, b = (each.mT if attributes.get_int(name, 0) else each for name, each in (("transA", a), ("transB", b)))
    product = _scaled(a @ b, attributes.get_float("alpha", 1.0))
    return product if c is None else product + _scaled(c, attributes.get_float("beta", 1.0))


def _scaled(x: Tensor, factor: float) -> Tensor:
    return x if factor == 1 else factor * x


def _einsum(node: ir.Node, *terms: Tensor) -> Tensor:
    return torch.einsum(node.attributes.get_string("equation", ""), *terms)


def _conv(node: ir.Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    geometry = Geometry(node, x.shape[2:], weight.shape[2:])
    padding, groups = geometry.same_on_both_sides, node.attributes.get_int("group", 1)
    if padding is None:
        x, padding = padded(x, geometry.pads), [0] * len(geometry.pads)
    convolve = _CONVOLVE[len(padding)]
    return convolve(x, weight, bias, geometry.strides, padding, geometry.dilations, groups)


def _conv_transpose(node: ir.Node, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    geometry, groups = Geometry(node, x.shape[2:], weight.shape[2:]), node.attributes.get_int("group", 1)
    transposed = _TRANSPOSED[len(geometry.kernel)]
    whole = transposed(x, weight, None, geometry.strides, 0, 0, groups, geometry.dilations)
    cut = transposed_pads(node, x.shape[2:], geometry.kernel)
    result = padded(whole, [(-before, -behind) for before, behind in cut])
    return result if bias is None else result + bias.reshape(-1, *[1] * len(geometry.kernel))


def _fused_matmul(node: ir.Node, a: Tensor, b: Tensor) -> Tensor:
    attributes = node.attributes
    if attributes.get_int("transBatchA", 0) or attributes.get_int("transBatchB", 0):
        raise refuse(node, "transposed batches")
    a, b = (each.mT if attributes.get_int(name, 0) else each for name, each in (("transA", a), ("transB", b)))
    return _scaled(a @ b, attributes.get_float("alpha", 1.0))


_ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "": lambda x: x,
    "Relu": torch.relu,
    "Sigmoid": torch.sigmoid,
    "Tanh": torch.tanh,
}


def _activated(node: ir.Node, x: Tensor) -> Tensor:
    """What follows a product in the same operator."""
    name = node.attributes.get_string("activation", "")
    alpha_beta = [node.attributes.get_float(f"activation_{each}", 0.0) for each in ("alpha", "beta")]
    given = node.attributes.get_floats("activation_params", alpha_beta)  # FusedGemm has them one by one
    if name == "LeakyRelu":
        return functional.leaky_relu(x, given[0])
    if name == "HardSigmoid":
        return (given[0] * x + given[1]).clamp(0, 1)
    if name == "Clip":
        return x.clamp(given[0], given[1])
    if name not in _ACTIVATIONS:
        raise refuse(node, f"the activation {name}")
    return _ACTIVATIONS[name](x)


def _fused_conv(
    node: ir.Node, x: Tensor, weight: Tensor, bias: Tensor | None = None, more: Tensor | None = None
) -> Tensor:
    result = _conv(node, x, weight, bias)
    return _activated(node, result if more is None else result + more)


def _fused_gemm(node: ir.Node, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    return _activated(node, _gemm(node, a, b, c))


OPERATORS: dict[str, Operator] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Einsum": _einsum,
    "Gemm": _gemm,
    "MatMul": plain(torch.matmul),
    "com.microsoft.FusedConv": _fused_conv,
    "com.microsoft.FusedGemm": _fused_gemm,
    "com.microsoft.FusedMatMul": _fused_matmul,
}
