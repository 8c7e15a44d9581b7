"""Operators with a weight, as the dispatcher sees them: which vectors they multiply the weight by.

Below `nn.Module` and `torch.nn.functional` everything that applies a weight matrix is one of these operators,
also inside attention and in modules that use their weights by hand.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional

from muquant.format.channels import ROWS, Channels

MOST_ROWS = 2**15
"""Vectors taken from one call; of more, so many are drawn: neighbouring patches say little new."""


class Product(NamedTuple):
    """A weight at work.

    Attributes:
        weight: as the operator got it.
        channels: which of its numbers are one output channel there.
        vectors: draws float32 [blocks, n, inputs] of what it is multiplied by.
    """

    weight: Tensor
    channels: Channels
    vectors: Callable[[Generator], Tensor]


def _product(one: Tensor, other: Tensor, *_: Any, **__: Any) -> Iterator[Product]:
    """Of matrices, each of which may be the weight."""
    yield Product(other, Channels((1,)), lambda generator: drawn(one, generator)[None])
    yield Product(one, ROWS, lambda generator: drawn(other.T, generator)[None])


def _added_product(_: Tensor, one: Tensor, other: Tensor, **__: Any) -> Iterator[Product]:
    return _product(one, other)


def _products(one: Tensor, other: Tensor, *_: Any, **__: Any) -> Iterator[Product]:
    """Of stacks of matrices."""
    for weight, x, axis in ((other, one, 2), (one, other.mT, 1)):
        if weight.stride(0) == 0:  # one matrix for all
            channels, alone = Channels((axis - 1,)), weight[0]
            yield Product(alone, channels, partial(product_vectors, x, ()))
        else:
            shared = x[:1] if x.stride(0) == 0 else x
            yield Product(weight, Channels((0, axis)), partial(product_vectors, shared, weight.shape[:1]))


def _added_products(_: Tensor, one: Tensor, other: Tensor, **__: Any) -> Iterator[Product]:
    return _products(one, other)


def _vector_product(weight: Tensor, x: Tensor) -> Iterator[Product]:
    yield Product(weight, ROWS, lambda generator: x[None, None])


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
) -> Iterator[Product]:
    kernel = weight.shape[2:]
    if transposed:
        cut = [(size, size - more) for size, more in zip(padding, output_padding, strict=True)]
        yield Product(
            weight,
            Channels((1,), groups).simplest(tuple(weight.shape)),
            lambda generator: transposed_patches(x, kernel, stride, cut, dilation, groups, generator),
        )
        return
    yield Product(
        weight,
        ROWS,
        lambda generator: patches(
            functional.pad(x, [size for size in reversed(padding) for _ in range(2)]),
            kernel,
            stride,
            dilation,
            groups,
            generator,
        ),
    )


OPERATORS: dict[Any, Callable[..., Iterator[Product]]] = {
    torch.ops.aten.mm.default: _product,
    torch.ops.aten.addmm.default: _added_product,
    torch.ops.aten.bmm.default: _products,
    torch.ops.aten.baddbmm.default: _added_products,
    torch.ops.aten.mv.default: _vector_product,
    torch.ops.aten.convolution.default: _convolution,
}
"""Operator -> what may be its weights, and the vectors that they are multiplied by."""


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


def transposed_patches(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    cut: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    groups: int,
    generator: Generator,
) -> Tensor:
    """What a transposed convolution multiplies for each number of its output: [groups, n, inputs / groups].

    It is a convolution of the input with `stride` - 1 zeros between its elements, whose kernel is turned
    round: here the input is.

    Args:
        x: [N, C, ...].
        kernel: size of the kernel.
        stride: of the convolution.
        cut: what is cut off the full output before and behind, for each place; below 0 it is padded.
        dilation: distance of the kernel's elements.
        groups: blocks of channels, a patch of each.
        generator: draws.
    """
    spaced = x.new_zeros(
        *x.shape[:2], *((size - 1) * step + 1 for size, step in zip(x.shape[2:], stride, strict=True))
    )
    places: list[Any] = [slice(None, None, step) for step in stride]
    spaced[(..., *places)] = x
    reach = [(size - 1) * apart for size, apart in zip(kernel, dilation, strict=True)]
    sides = [full - each for full, pair in zip(reach[::-1], cut[::-1], strict=True) for each in pair]
    padded = functional.pad(spaced, sides).flip(list(range(2, x.dim())))
    return patches(padded, kernel, [1] * len(kernel), dilation, groups, generator)


def product_vectors(x: Tensor, stack: Sequence[int], generator: Generator) -> Tensor:
    """What a matrix product multiplies matrices [*stack, inputs, outputs] by: [blocks, n, inputs].

    Args:
        x: [..., inputs]; where it has axes of `stack`, each matrix has vectors of its own, else there is one
            block.
        stack: sizes of the weight's axes in front of its matrices.
        generator: draws.
    """
    if x.dim() == 1:
        x = x[None]
    outer = [*[1] * (len(stack) - x.dim() + 2), *x.shape[:-2]]
    more = len(outer) - len(stack)
    x = x.reshape(*outer, *x.shape[-2:])
    own = [place + more for place, size in enumerate(stack) if size > 1]
    if all(outer[place] == 1 for place in own):
        return drawn(x.reshape(-1, x.shape[-1]), generator)[None]
    x = x.expand(
        [size if place < more else max(size, stack[place - more]) for place, size in enumerate(outer)]
        + [-1, -1]
    )
    rest = [place for place in range(x.dim() - 1) if place not in own]
    rows = x.permute(*rest, *own, -1).reshape(-1, math.prod(x.shape[place] for place in own), x.shape[-1])
    return drawn(rows, generator).transpose(0, 1)


def drawn(x: Tensor, generator: Generator) -> Tensor:
    """The rows [n, ...] of a matrix, all or `MOST_ROWS` drawn ones."""
    chosen = _draw(len(x), generator)
    return x if chosen is None else x[chosen]


def _draw(count: int, generator: Generator) -> Tensor | None:
    if count <= MOST_ROWS:
        return None
    return torch.randint(count, (MOST_ROWS,), generator=generator)
