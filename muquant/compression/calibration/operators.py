"""Operators with a weight, as the dispatcher sees them: which vectors they multiply the weight by.

Below `nn.Module` and `torch.nn.functional` everything that applies a weight matrix is one of these operators,
also inside attention and in modules that use their weights by hand.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.nn import functional

from muquant.compression.calibration.padding import without_padding
from muquant.format.channels import ROWS, Channels

LEAST_VECTORS, FOR_EACH_INPUT = 24_000, 12
"""Of all samples, those held out among them, so many vectors are taken at least, and so many for each number
that a vector has. Of more they are drawn: neighbouring patches say little new. It costs 0.03 dB."""


def most_vectors(inputs: int) -> int:
    """Return how many vectors of so many numbers are taken of all samples."""
    return max(LEAST_VECTORS, FOR_EACH_INPUT * inputs)


@dataclass(frozen=True, eq=False)
class Draw:
    """Draws which of many vectors are taken.

    Attributes:
        generator: what it draws with.
        share: of all samples that are in the batch that is running.
        filled: its positions that are no padding, see `filled_positions`.
    """

    generator: Generator
    share: float = 1.0
    filled: tuple[Tensor, ...] = ()

    def __call__(self, count: int, inputs: int) -> Tensor | None:
        """Return places of some of `count` vectors of `inputs` numbers, ascending and at much the same
        distances; None for all of them."""
        most = math.ceil(self.share * most_vectors(inputs))
        if count <= most:
            return None
        within = torch.rand(most, generator=self.generator, dtype=torch.float64)
        places = (torch.arange(most) + within) * (count / most)
        return places.long().clamp_(max=count - 1)


class Product(NamedTuple):
    """A weight at work.

    Attributes:
        weight: as the operator got it.
        channels: which of its numbers are one output channel there.
        operand: what it is multiplied by.
        how: what else `vectors` depends on, but for the draw.
        vectors: draws float32 [blocks, n, inputs] of the operand.
    """

    weight: Tensor
    channels: Channels
    operand: Tensor
    how: tuple[Any, ...]
    vectors: Callable[[Draw], Tensor]


def _product(one: Tensor, other: Tensor, *_: Any, **__: Any) -> Iterator[Product]:
    """Of matrices, each of which may be the weight."""
    for weight, channels, x in ((other, Channels((1,)), one), (one, ROWS, other.T)):
        yield Product(weight, channels, x, (), lambda draw, x=x: drawn(x, draw)[None])  # type: ignore[misc]


def _added_product(_: Tensor, one: Tensor, other: Tensor, **__: Any) -> Iterator[Product]:
    return _product(one, other)


def _products(one: Tensor, other: Tensor, *_: Any, **__: Any) -> Iterator[Product]:
    """Of stacks of matrices."""
    for weight, x, axis in ((other, one, 2), (one, other.mT, 1)):
        if weight.stride(0) == 0:  # one matrix for all
            channels, alone = Channels((axis - 1,)), weight[0]
            yield Product(alone, channels, x, (), partial(product_vectors, x, ()))
        else:
            shared, stack = x[:1] if x.stride(0) == 0 else x, tuple(weight.shape[:1])
            yield Product(weight, Channels((0, axis)), x, stack, partial(product_vectors, shared, stack))


def _added_products(_: Tensor, one: Tensor, other: Tensor, **__: Any) -> Iterator[Product]:
    return _products(one, other)


def _vector_product(weight: Tensor, x: Tensor) -> Iterator[Product]:
    yield Product(weight, ROWS, x, (), lambda draw: x[None, None])


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
    how = (transposed, *map(tuple, (kernel, stride, padding, dilation, output_padding)), groups)
    if transposed:
        cut = [(size, size - more) for size, more in zip(padding, output_padding, strict=True)]
        channels = Channels((1,), groups).simplest(tuple(weight.shape))
        vectors = partial(transposed_patches, x, kernel, stride, cut, dilation, groups)
        yield Product(weight, channels, x, how, vectors)
        return
    sides = [size for size in reversed(padding) for _ in range(2)]
    yield Product(
        weight, ROWS, x, how, lambda draw: patches(padded(x, sides), kernel, stride, dilation, groups, draw)
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
    draw: Draw,
) -> Tensor:
    """The patches that a convolution multiplies, all or some: [groups, n, inputs / groups].

    Args:
        x: padded, [N, C, ...] with as many places as `kernel`, `stride` and `dilation`.
        kernel: size of the kernel.
        stride: of the convolution.
        dilation: distance of the kernel's elements.
        groups: blocks of channels, a patch of each.
        draw: which vectors are taken.
    """
    places = len(kernel)
    for axis, (size, step, apart) in enumerate(zip(kernel, stride, dilation, strict=True), 2):
        x = x.unfold(axis, (size - 1) * apart + 1, step)
    for axis, apart in enumerate(dilation, places + 2):
        x = x[(slice(None),) * axis + (slice(None, None, apart),)]
    x = x.movedim(1, places + 1)  # [N, places..., C, kernel...], still a view
    chosen = draw(x.shape[: places + 1].numel(), x.shape[places + 1 :].numel() // groups)
    x = x.flatten(0, places) if chosen is None else x[torch.unravel_index(chosen, x.shape[: places + 1])]
    return x.reshape(len(x), groups, -1).movedim(1, 0)


def transposed_patches(
    x: Tensor,
    kernel: Sequence[int],
    stride: Sequence[int],
    cut: Sequence[tuple[int, int]],
    dilation: Sequence[int],
    groups: int,
    draw: Draw,
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
        draw: which vectors are taken.
    """
    spaced = x.new_zeros(
        *x.shape[:2], *((size - 1) * step + 1 for size, step in zip(x.shape[2:], stride, strict=True))
    )
    places: list[Any] = [slice(None, None, step) for step in stride]
    spaced[(..., *places)] = x
    reach = [(size - 1) * apart for size, apart in zip(kernel, dilation, strict=True)]
    sides = [full - each for full, pair in zip(reach[::-1], cut[::-1], strict=True) for each in pair]
    turned = padded(spaced, sides).flip(list(range(2, x.dim())))
    return patches(turned, kernel, [1] * len(kernel), dilation, groups, draw)


def product_vectors(x: Tensor, stack: Sequence[int], draw: Draw) -> Tensor:
    """What a matrix product multiplies matrices [*stack, inputs, outputs] by: [blocks, n, inputs].

    Args:
        x: [..., inputs]; where it has axes of `stack`, each matrix has vectors of its own, else there is one
            block.
        stack: sizes of the weight's axes in front of its matrices.
        draw: which vectors are taken.
    """
    x = without_padding(x[None] if x.dim() == 1 else x, draw.filled)
    outer = [*[1] * (len(stack) - x.dim() + 2), *x.shape[:-2]]
    more = len(outer) - len(stack)
    x = x.reshape(*outer, *x.shape[-2:])
    own = [place + more for place, size in enumerate(stack) if size > 1]
    if all(outer[place] == 1 for place in own):
        return drawn(x.reshape(-1, x.shape[-1]), draw)[None]
    x = x.expand(
        [size if place < more else max(size, stack[place - more]) for place, size in enumerate(outer)]
        + [-1, -1]
    )
    rest = [place for place in range(x.dim() - 1) if place not in own]
    rows = x.permute(*rest, *own, -1).reshape(-1, math.prod(x.shape[place] for place in own), x.shape[-1])
    return drawn(rows, draw).transpose(0, 1)


def drawn(x: Tensor, draw: Draw) -> Tensor:
    """The rows [n, ..., inputs] of a matrix, all or some of them."""
    x = without_padding(x, draw.filled)
    chosen = draw(len(x), x.shape[-1])
    return x if chosen is None else x[chosen]


def padded(x: Tensor, sides: Sequence[int]) -> Tensor:
    """Pad with zeros, as functional.pad does; without a copy where there is nothing to pad."""
    return functional.pad(x, sides) if any(sides) else x
