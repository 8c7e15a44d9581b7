"""Operators with a weight, as the dispatcher sees them: which vectors they multiply the weight by.

Below `nn.Module` and `torch.nn.functional` everything that applies a weight matrix is one of these operators,
also inside attention and in modules that use their weights by hand.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional

MOST_ROWS = 2**15
"""Vectors taken from one call; of more, so many are drawn: neighbouring patches say little new."""


class Product(NamedTuple):
    """A weight at work.

    Attributes:
        weight: as the operator got it.
        transposed: whether that is [inputs, outputs].
        vectors: draws float32 [blocks, n, inputs] of what it is multiplied by.
    """

    weight: Tensor
    transposed: bool
    vectors: Callable[[Generator], Tensor]


def _product(x: Tensor, weight: Tensor) -> Product:
    return Product(weight, True, lambda generator: drawn(x, generator)[None])


def _addmm(bias: Tensor, x: Tensor, weight: Tensor, **_: Any) -> Product:
    return _product(x, weight)


def _bmm(x: Tensor, weight: Tensor) -> Product | None:
    if weight.stride(0) != 0:  # not one matrix for all
        return None
    return _product(x.flatten(0, 1), weight[0])


def _convolution(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
) -> Product | None:
    if transposed:
        return None
    return Product(
        weight,
        False,
        lambda generator: patches(
            functional.pad(x, [size for size in reversed(padding) for _ in range(2)]),
            weight.shape[2:],
            stride,
            dilation,
            groups,
            generator,
        ),
    )


OPERATORS: dict[Any, Callable[..., Product | None]] = {
    torch.ops.aten.mm.default: _product,
    torch.ops.aten.addmm.default: _addmm,
    torch.ops.aten.bmm.default: _bmm,
    torch.ops.aten.convolution.default: _convolution,
}
"""Operator -> its weight and vectors, or None where no matrix is multiplied by vectors."""


def patches(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    dilation: Sequence[int],
    groups: int,
    generator: Generator,
) -> Tensor:
    """The patches that a convolution multiplies, all or `MOST_ROWS` drawn ones: [groups, n, inputs / groups].

    Args:
        x: padded, [N, C, ...] with as many places as `kernel`, `stride` and `dilation`.
        kernel: size of the kernel.
        stride: of the convolution.
        dilation: distance of the kernel's elements.
        groups: blocks of channels, a patch of each.
        generator: draws.
    """
    places = len(kernel)
    for axis, (size, step, apart) in enumerate(zip(kernel, stride, dilation, strict=True), 2):
        x = x.unfold(axis, (size - 1) * apart + 1, step)
    for axis, apart in enumerate(dilation, places + 2):
        x = x[(slice(None),) * axis + (slice(None, None, apart),)]
    x = x.movedim(1, places + 1)  # [N, places..., C, kernel...], still a view
    chosen = _draw(x.shape[: places + 1].numel(), generator)
    x = x.flatten(0, places) if chosen is None else x[torch.unravel_index(chosen, x.shape[: places + 1])]
    return x.reshape(len(x), groups, -1).movedim(1, 0)


def drawn(x: Tensor, generator: Generator) -> Tensor:
    """The rows [n, inputs] of a matrix, all or `MOST_ROWS` drawn ones."""
    chosen = _draw(len(x), generator)
    return x if chosen is None else x[chosen]


def _draw(count: int, generator: Generator) -> Tensor | None:
    if count <= MOST_ROWS:
        return None
    return torch.randint(count, (MOST_ROWS,), generator=generator)
