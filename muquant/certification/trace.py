"""A network is run on ranges instead of numbers: what each operation makes of them is written down."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from muquant.base.errors import InputError
from muquant.certification.operations import Affine, Function, MaxPool, Operation, Range, Relu, Sum

_Translator = Callable[..., "Traced"]
TRANSLATORS: dict[Callable[..., Any], _Translator] = {}
"""Function of PyTorch -> how it is written down: one function each."""


class Traced:
    """A value of a network that runs on ranges; it goes through a module as a tensor does.

    Attributes:
        range: where it lies, [N, ...].
        operation: that made it; None for the network's input.
        inputs: of that.
    """

    def __init__(
        self, values: Range, operation: Operation | None = None, inputs: "Sequence[Traced]" = ()
    ) -> None:
        self.range, self.operation, self.inputs = values, operation, tuple(inputs)

    @classmethod
    def __torch_function__(
        cls, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        translator = TRANSLATORS.get(function)
        if translator is None:
            name = getattr(function, "__name__", str(function))
            raise InputError(
                f"the network uses {name}, of which no bounds are known; certify networks of convolutions, "
                f"linear layers, BatchNorm, ReLU, pooling and sums"
            )
        return translator(*args, **(kwargs or {}))

    def after(self, operation: Operation, *others: "Traced") -> "Traced":
        """What an operation makes of this and of others."""
        inputs = (self, *others)
        return Traced(operation.forward([each.range for each in inputs]), operation, inputs)

    def in_order(self) -> "list[Traced]":
        """All values that this is made of and itself, each behind those that it is made of."""
        order: dict[Traced, None] = {}
        pending: list[tuple[Traced, bool]] = [(self, False)]
        while pending:
            node, ready = pending.pop()
            if node in order:
                continue
            if ready:
                order[node] = None
                continue
            pending.append((node, True))
            pending += [(each, False) for each in node.inputs]
        return list(order)

    @property
    def shape(self) -> torch.Size:
        """[N, ...]."""
        return self.range.lower.shape

    @property
    def dtype(self) -> torch.dtype:
        """Of the ends."""
        return self.range.lower.dtype

    @property
    def device(self) -> torch.device:
        """Of the ends."""
        return self.range.lower.device

    def __len__(self) -> int:
        return len(self.range.lower)

    def dim(self) -> int:
        """How many axes there are."""
        return self.range.lower.dim()

    def size(self, axis: int | None = None) -> Any:
        """The shape, or one of its sizes."""
        return self.shape if axis is None else self.shape[axis]

    def flatten(self, start: int = 0, end: int = -1) -> "Traced":
        """As of tensors; the first axis stays."""
        return _flatten(self, start, end)

    def reshape(self, *shape: Any) -> "Traced":
        """As of tensors; the first axis stays."""
        return _reshape(self, *shape)

    view = reshape

    def mean(self, dim: Any = None, keepdim: bool = False) -> "Traced":
        """As of tensors, over any but the first axis."""
        return _mean(self, dim, keepdim)

    def relu(self) -> "Traced":
        """As of tensors."""
        return _relu(self)

    def contiguous(self) -> "Traced":
        """Itself."""
        return self

    def __add__(self, other: Any) -> "Traced":
        return _add(self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> "Traced":
        return _sub(self, other)

    def __mul__(self, other: Any) -> "Traced":
        return _mul(self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> "Traced":
        return _div(self, other)


def _translates(*functions: Callable[..., Any]) -> Callable[[_Translator], _Translator]:
    def register(translator: _Translator) -> _Translator:
        TRANSLATORS.update(dict.fromkeys(functions, translator))
        return translator

    return register


def _constant(value: Any, x: Traced) -> Any:
    """A constant of the network, in the precision of the bounds."""
    if isinstance(value, Traced):
        raise InputError(
            "the network multiplies, divides or subtracts values that it has computed, of which no bounds "
            "are known"
        )
    return value.to(x.device, x.dtype) if isinstance(value, Tensor) else value


def _monotone(x: Traced, apply: Function, terms: int) -> Traced:
    """A linear operation without negative coefficients."""
    return x.after(Affine(apply, apply, apply, terms))


@_translates(functional.linear)
def _linear(x: Traced, weight: Tensor, bias: Tensor | None = None) -> Traced:
    weight = weight.to(x.dtype)
    bias = None if bias is None else bias.to(x.dtype)
    return x.after(
        Affine(
            lambda values: functional.linear(values, weight, bias),
            lambda values: functional.linear(values, weight),
            lambda values: functional.linear(values, weight.abs()),
            lambda some: functional.linear(some, (weight != 0).to(weight)) + 1,
            added=0.0 if bias is None else bias.abs(),
        )
    )


@_translates(torch.conv2d)
def _conv2d(x: Traced, weight: Tensor, bias: Tensor | None = None, *args: Any, **kwargs: Any) -> Traced:
    weight = weight.to(x.dtype)
    bias = None if bias is None else bias.to(x.dtype)
    return x.after(
        Affine(
            lambda values: torch.conv2d(values, weight, bias, *args, **kwargs),
            lambda values: torch.conv2d(values, weight, None, *args, **kwargs),
            lambda values: torch.conv2d(values, weight.abs(), None, *args, **kwargs),
            lambda some: torch.conv2d(some, (weight != 0).to(weight), None, *args, **kwargs) + 1,
            added=0.0 if bias is None else bias.abs()[:, None, None],
        )
    )


@_translates(functional.batch_norm)
def _batch_norm(
    x: Traced,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Traced:
    if training or running_mean is None or running_var is None:
        raise InputError("BatchNorm looks at the batch: call eval() first; it needs its running statistics")
    shape = (-1, *[1] * (x.dim() - 2))
    mean, var = running_mean.to(x.dtype), running_var.to(x.dtype)
    scale = (var + eps).rsqrt() * (1.0 if weight is None else weight.to(x.dtype))
    offset = -mean * scale + (0.0 if bias is None else bias.to(x.dtype))
    added = (mean * scale).abs() + (0.0 if bias is None else bias.to(x.dtype).abs())
    scale, offset, added = (each.reshape(shape) for each in (scale, offset, added))
    return x.after(
        Affine(
            lambda values: values * scale + offset,
            lambda values: values * scale,
            lambda values: values * scale.abs(),
            terms=8,  # of the layer, and of kernels and biases into which runtimes fold it
            added=added,
        )
    )


@_translates(functional.relu, torch.relu, torch.relu_)
def _relu(x: Traced, inplace: bool = False) -> Traced:
    return x.after(Relu())


@_translates(functional.max_pool2d, torch.max_pool2d)
def _max_pool2d(
    x: Traced,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Traced:
    if ceil_mode or return_indices:
        raise InputError("max_pool2d with ceil_mode or return_indices: no bounds are known")
    kernel = _pair(kernel_size)
    return x.after(MaxPool(kernel, _pair(stride or kernel), _pair(padding), _pair(dilation)))


@_translates(functional.avg_pool2d)
def _avg_pool2d(x: Traced, kernel_size: Any, *args: Any, **kwargs: Any) -> Traced:
    high, wide = _pair(kernel_size)
    return _monotone(
        x, lambda values: functional.avg_pool2d(values, kernel_size, *args, **kwargs), high * wide + 1
    )


@_translates(functional.adaptive_avg_pool2d)
def _adaptive_avg_pool2d(x: Traced, output_size: Any) -> Traced:
    count = x.shape[-1] * x.shape[-2] + 1
    return _monotone(x, lambda values: functional.adaptive_avg_pool2d(values, output_size), count)


@_translates(torch.mean)
def _mean(x: Traced, dim: Any = None, keepdim: bool = False) -> Traced:
    axes = [dim] if isinstance(dim, int) else list(range(x.dim()) if dim is None else dim)
    axes = sorted({axis % x.dim() for axis in axes})
    if 0 in axes:
        raise InputError("the network takes a mean over its images, of which no bounds are known")
    count = x.range.lower[0].numel() + 1
    return _monotone(x, lambda values: values.mean(axes, keepdim), count)


@_translates(torch.flatten)
def _flatten(x: Traced, start_dim: int = 0, end_dim: int = -1) -> Traced:
    shape = x.range.lower.flatten(start_dim, end_dim).shape
    return _reshape(x, *shape)


@_translates(torch.reshape)
def _reshape(x: Traced, *shape: Any) -> Traced:
    found = x.range.lower.reshape(*shape).shape
    if found[:1] != x.shape[:1]:
        raise InputError(f"the network reshapes {list(x.shape)} to {list(found)}; images have to stay apart")
    return _monotone(x, lambda values: values.reshape(len(values), *found[1:]), 0)


@_translates(functional.dropout, functional.dropout2d)
def _dropout(x: Traced, p: float = 0.5, training: bool = True, inplace: bool = False) -> Traced:
    if training and p:
        raise InputError("dropout draws numbers in training mode: call eval() first")
    return x


@_translates(torch.add, Tensor.add, Tensor.__add__, Tensor.__radd__)
def _add(x: Any, other: Any) -> Traced:
    if isinstance(x, Traced) and isinstance(other, Traced):
        return x.after(Sum(), other)
    return _moved(x, other) if isinstance(x, Traced) else _moved(other, x)


@_translates(torch.sub, Tensor.sub, Tensor.__sub__)
def _sub(x: Traced, other: Any) -> Traced:
    return _moved(x, -_constant(other, x))


@_translates(torch.mul, Tensor.mul, Tensor.__mul__, Tensor.__rmul__)
def _mul(x: Any, other: Any) -> Traced:
    return _scaled(x, other) if isinstance(x, Traced) else _scaled(other, x)


@_translates(torch.div, torch.true_divide, Tensor.div, Tensor.__truediv__)
def _div(x: Traced, other: Any) -> Traced:
    return _scaled(x, 1 / _constant(other, x))


def _moved(x: Traced, constant: Any) -> Traced:
    constant = _constant(constant, x)
    size = constant.abs() if isinstance(constant, Tensor) else abs(constant)

    def apply(values: Tensor) -> Tensor:
        found: Tensor = values + constant
        return found

    return x.after(Affine(apply, _same, _same, terms=1, added=size))


def _scaled(x: Traced, scale: Any) -> Traced:
    scale = _constant(scale, x)
    size = scale.abs() if isinstance(scale, Tensor) else abs(scale)

    def apply(values: Tensor) -> Tensor:
        found: Tensor = values * scale
        return found

    return x.after(Affine(apply, apply, lambda values: values * size, terms=2))


def _same(values: Tensor) -> Tensor:
    return values


def _pair(value: Any) -> tuple[int, int]:
    high, wide = (value, value) if isinstance(value, int) else value
    return int(high), int(wide)


def traced(module: nn.Module, values: Range) -> Traced:
    """Run a module on ranges.

    Args:
        module: in evaluation mode, unless it is the same in both.
        values: of its input, [N, ...].

    Raises:
        InputError: it does something of which no bounds are known, or returns something else than logits.
    """
    found = module(Traced(values))
    if not isinstance(found, Traced) or found.dim() != 2:
        raise InputError(f"the network returns {type(found).__name__}; expected logits [N, classes]")
    return found
