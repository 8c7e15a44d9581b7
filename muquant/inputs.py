"""What a model is called with: one tensor, several, or tensors by the names of its arguments."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor

from muquant.errors import InputError

Example = Tensor | Sequence[Tensor] | Mapping[str, Tensor]
"""An input of a model, its inputs in order, or its inputs by the names of its arguments; [N, ...] each."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """The arguments of one call.

    Attributes:
        tensors: in the order in which they were given.
        names: of the arguments they are given for; empty where they go by their order.
    """

    tensors: tuple[Tensor, ...]
    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, example: object) -> Self:
        """Read an `Example`.

        Raises:
            InputError: it is none.
        """
        names: tuple[Any, ...] = ()
        if isinstance(example, Tensor):
            values: tuple[Any, ...] = (example,)
        elif isinstance(example, Mapping):
            names, values = tuple(example), tuple(example.values())
        elif isinstance(example, Sequence):
            values = tuple(example)
        else:
            values = (example,)
        if not all(isinstance(value, Tensor) for value in values) or not all(
            isinstance(name, str) for name in names
        ):
            kinds = sorted({type(value).__name__ for value in (*names, *values)})
            raise InputError(
                "example inputs: expected a tensor, a sequence of tensors, or tensors by argument name, "
                f"found {type(example).__name__} of {', '.join(kinds)}; convert them"
            )
        return cls(values, names)

    @property
    def example(self) -> Example:
        """The same as an `Example`."""
        return dict(zip(self.names, self.tensors, strict=True)) if self.names else self.tensors

    @property
    def count(self) -> int:
        """How many examples there are: the first size of every tensor.

        Raises:
            InputError: there is none, or the tensors disagree.
        """
        counts = {len(tensor) if tensor.dim() else 0 for tensor in self.tensors}
        if len(counts) != 1 or 0 in counts:
            raise InputError(
                f"inputs of shape {self.shapes}: expected tensors [N, ...] of one N, at least 1; "
                "give as many examples in each"
            )
        return counts.pop()

    @property
    def shapes(self) -> str:
        """For messages, such as "[(2, 3)]" or "{ids: (2, 16), mask: (2, 16)}"."""
        sizes = [tuple(tensor.shape) for tensor in self.tensors]
        if not self.names:
            return str(sizes)
        return f"{{{', '.join(f'{name}: {size}' for name, size in zip(self.names, sizes, strict=True))}}}"

    def call(self, function: Callable[..., Any]) -> Any:
        """Call a model, or whatever takes these arguments."""
        if self.names:
            return function(**dict(zip(self.names, self.tensors, strict=True)))
        return function(*self.tensors)

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the same arguments with other values."""
        return replace(self, tensors=tuple(change(tensor) for tensor in self.tensors))

    def batches(self, size: int) -> Iterator[Self]:
        """Yield the examples, `size` at a time."""
        return (self.rows(start, start + size) for start in range(0, self.count, size))

    def rows(self, start: int, stop: int) -> Self:
        """Return the examples from `start` up to `stop`."""
        return self.map(lambda tensor: tensor[start:stop])


def random_inputs(example: Example, count: int, seed: int = 0) -> Example:
    """Return inputs like an example's, for a model that is to be tried on something.

    Floating-point inputs are uniform between the example's least and largest value, or in [0, 1) where it is
    constant. Integers and booleans mean something: rows of them are taken from the example, in turn. With no
    floating-point input there is nothing to draw, and the example itself is returned.

    Args:
        example: inputs [N, ...] each.
        count: rows to return.
        seed: of the draw.
    """
    inputs, generator = Inputs.of(example), torch.Generator().manual_seed(seed)
    if not any(tensor.is_floating_point() for tensor in inputs.tensors):
        return example

    def draw(tensor: Tensor) -> Tensor:
        if not tensor.is_floating_point():
            return tensor[torch.arange(count) % len(tensor)]
        low, high = float(tensor.min()), float(tensor.max())
        if low == high:
            low, high = 0.0, 1.0
        drawn = torch.rand(count, *tensor.shape[1:], generator=generator)
        return (low + (high - low) * drawn).to(tensor.dtype)

    return inputs.map(draw).example
