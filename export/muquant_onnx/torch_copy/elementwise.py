"""Operators that work number by number."""

from functools import reduce

import onnx_ir as ir
import torch
from torch import Tensor
from torch.nn import functional

from muquant_onnx.torch_copy.operator import Operator, dtype_of, plain


def _div(_: ir.Node, one: Tensor, other: Tensor) -> Tensor:
    return one / other if one.is_floating_point() else torch.div(one, other, rounding_mode="trunc")


def _mod(node: ir.Node, one: Tensor, other: Tensor) -> Tensor:
    by_sign = torch.fmod if node.attributes.get_int("fmod", 0) else torch.remainder
    return by_sign(one, other)


def _pow(_: ir.Node, base: Tensor, exponent: Tensor) -> Tensor:
    if exponent.numel() == 1 and not exponent.requires_grad:
        power = base.pow(exponent.item()).to(base.dtype)  # faster, and steadier at zero
        return power.reshape([1] * (exponent.dim() - base.dim()) + list(base.shape))
    return base.pow(exponent).to(base.dtype)


def _clip(node: ir.Node, x: Tensor, low: Tensor | None = None, high: Tensor | None = None) -> Tensor:
    del node
    x = x if low is None else torch.maximum(x, low)
    return x if high is None else torch.minimum(x, high)


def _cast(node: ir.Node, x: Tensor) -> Tensor:
    return x.to(dtype_of(node.attributes.get_int("to", ir.DataType.FLOAT)))


def _bit_shift(node: ir.Node, x: Tensor, count: Tensor) -> Tensor:
    return x << count if node.attributes.get_string("direction") == "LEFT" else x >> count


def _leaky_relu(node: ir.Node, x: Tensor) -> Tensor:
    return functional.leaky_relu(x, node.attributes.get_float("alpha", 0.01))


def _elu(node: ir.Node, x: Tensor) -> Tensor:
    return functional.elu(x, node.attributes.get_float("alpha", 1.0))


def _celu(node: ir.Node, x: Tensor) -> Tensor:
    return functional.celu(x, node.attributes.get_float("alpha", 1.0))


def _selu(node: ir.Node, x: Tensor) -> Tensor:
    alpha = node.attributes.get_float("alpha", 1.67326319217681884765625)
    return node.attributes.get_float("gamma", 1.05070102214813232421875) * functional.elu(x, alpha)


def _prelu(_: ir.Node, x: Tensor, slope: Tensor) -> Tensor:
    return torch.where(x < 0, slope * x, x)


def _hard_sigmoid(node: ir.Node, x: Tensor) -> Tensor:
    alpha, beta = node.attributes.get_float("alpha", 0.2), node.attributes.get_float("beta", 0.5)
    return (alpha * x + beta).clamp(0, 1)


def _thresholded_relu(node: ir.Node, x: Tensor) -> Tensor:
    return torch.where(x > node.attributes.get_float("alpha", 1.0), x, 0.0)


def _shrink(node: ir.Node, x: Tensor) -> Tensor:
    bias, edge = node.attributes.get_float("bias", 0.0), node.attributes.get_float("lambd", 0.5)
    return torch.where(x < -edge, x + bias, torch.where(x > edge, x - bias, 0.0))


def _gelu(node: ir.Node, x: Tensor) -> Tensor:
    return functional.gelu(x, approximate=node.attributes.get_string("approximate", "none"))


def _quick_gelu(node: ir.Node, x: Tensor) -> Tensor:
    return x * torch.sigmoid(node.attributes.get_float("alpha", 1.702) * x)


def _swish(node: ir.Node, x: Tensor) -> Tensor:
    return x * torch.sigmoid(node.attributes.get_float("alpha", 1.0) * x)


def _fast_gelu(_: ir.Node, x: Tensor, bias: Tensor | None = None) -> Tensor:
    return functional.gelu(x if bias is None else x + bias, approximate="tanh")


def _bias_gelu(_: ir.Node, x: Tensor, bias: Tensor) -> Tensor:
    return functional.gelu(x + bias)


def _is_infinite(node: ir.Node, x: Tensor) -> Tensor:
    found = torch.zeros_like(x, dtype=torch.bool)
    if node.attributes.get_int("detect_positive", 1):
        found |= x.isposinf()
    if node.attributes.get_int("detect_negative", 1):
        found |= x.isneginf()
    return found


def _same(_: ir.Node, x: Tensor, *others: Tensor) -> Tensor:
    del others
    return x


OPERATORS: dict[str, Operator] = {
    "Abs": plain(torch.abs),
    "Acos": plain(torch.acos),
    "Acosh": plain(torch.acosh),
    "Add": plain(torch.add),
    "And": plain(torch.logical_and),
    "Asin": plain(torch.asin),
    "Asinh": plain(torch.asinh),
    "Atan": plain(torch.atan),
    "Atanh": plain(torch.atanh),
    "BitShift": _bit_shift,
    "BitwiseAnd": plain(torch.bitwise_and),
    "BitwiseNot": plain(torch.bitwise_not),
    "BitwiseOr": plain(torch.bitwise_or),
    "BitwiseXor": plain(torch.bitwise_xor),
    "Cast": _cast,
    "CastLike": lambda _, x, like: x.to(like.dtype),
    "Ceil": plain(torch.ceil),
    "Celu": _celu,
    "Clip": _clip,
    "Cos": plain(torch.cos),
    "Cosh": plain(torch.cosh),
    "Div": _div,
    "Dropout": _same,
    "Elu": _elu,
    "Equal": plain(torch.eq),
    "Erf": plain(torch.erf),
    "Exp": plain(torch.exp),
    "Floor": plain(torch.floor),
    "Gelu": _gelu,
    "Greater": plain(torch.gt),
    "GreaterOrEqual": plain(torch.ge),
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": plain(functional.hardswish),
    "Identity": _same,
    "IsInf": _is_infinite,
    "IsNaN": plain(torch.isnan),
    "LeakyRelu": _leaky_relu,
    "Less": plain(torch.lt),
    "LessOrEqual": plain(torch.le),
    "Log": plain(torch.log),
    "Max": lambda _, *terms: reduce(torch.maximum, terms),
    "Mean": lambda _, *terms: reduce(torch.add, terms) / len(terms),
    "Min": lambda _, *terms: reduce(torch.minimum, terms),
    "Mish": plain(functional.mish),
    "Mod": _mod,
    "Mul": plain(torch.mul),
    "Neg": plain(torch.neg),
    "Not": plain(torch.logical_not),
    "Or": plain(torch.logical_or),
    "PRelu": _prelu,
    "Pow": _pow,
    "Reciprocal": plain(torch.reciprocal),
    "Relu": plain(torch.relu),
    "Round": plain(torch.round),
    "Selu": _selu,
    "Shrink": _shrink,
    "Sigmoid": plain(torch.sigmoid),
    "Sign": plain(torch.sign),
    "Sin": plain(torch.sin),
    "Sinh": plain(torch.sinh),
    "Softplus": plain(functional.softplus),
    "Softsign": plain(functional.softsign),
    "Sqrt": plain(torch.sqrt),
    "Sub": plain(torch.sub),
    "Sum": lambda _, *terms: reduce(torch.add, terms),
    "Swish": _swish,
    "Tan": plain(torch.tan),
    "Tanh": plain(torch.tanh),
    "ThresholdedRelu": _thresholded_relu,
    "Where": plain(torch.where),
    "Xor": plain(torch.logical_xor),
    "com.microsoft.BiasGelu": _bias_gelu,
    "com.microsoft.FastGelu": _fast_gelu,
    "com.microsoft.Gelu": plain(functional.gelu),
    "com.microsoft.QuickGelu": _quick_gelu,
}
