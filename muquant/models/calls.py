"""How any module is called: its inputs in every form, evaluation mode, the tensors in its result."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, is_dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import TreeSpec, tree_flatten_with_path, tree_unflatten

from muquant.base.errors import InputError
from muquant.models.caches import make_known

Example = Tensor | NDArray[Any] | Sequence[Any] | Mapping[str, Any]
"""An input of a model, its inputs in order, or its inputs by the names of its arguments; [N, ...] each.

Each is a tensor or an array of numbers, or among others a number, which is the same for all N; so is what has
no axes. `Inputs.axes` says where N may be instead.

Inputs in order, or by name, may be tuples, lists or dicts of tensors, or whatever torch's pytree knows: the
keys and values that a decoder remembers are such.
"""


@dataclass(frozen=True, eq=False)
class Inputs:
    """The arguments of one call.

    Attributes:
        tensors: in the order in which they were given.
        names: of the arguments they are given for; empty where they go by their order. A part of an argument
            has its path, such as "past_key_values.0.1".
        structure: of the arguments, where one of them has parts; None where each is a tensor.
        known_axes: `axes` where they are known, as of rows of other inputs; nothing but None for one example.
    """

    tensors: tuple[Tensor, ...]
    names: tuple[str, ...] = ()
    structure: TreeSpec | None = None
    known_axes: tuple[int | None, ...] | None = None

    @classmethod
    def of(cls, example: object) -> Self:
        """Read an `Example`.

        Raises:
            InputError: it is none.
        """
        arguments: dict[Any, Any] | tuple[Any, ...]
        if isinstance(example, Mapping):
            arguments = dict(example)
        elif isinstance(example, Sequence):
            arguments = tuple(example)
        else:
            arguments = (example,)
        leaves, structure = tree_flatten_with_path(arguments)
        if make_known(value for _, value in leaves):
            leaves, structure = tree_flatten_with_path(arguments)
        among = any(isinstance(value, Tensor | np.ndarray) for _, value in leaves)
        paths = [path for path, _ in leaves]
        values = tuple(_tensor(value, number=among and len(path) == 1) for path, value in leaves)
        keys = list(arguments) if isinstance(arguments, dict) else []
        if not all(isinstance(value, Tensor) for value in values) or not all(
            isinstance(key, str) for key in keys
        ):
            kinds = sorted({type(value).__name__ for value in (*keys, *values)})
            raise InputError(
                "example inputs: expected a tensor, a sequence of tensors, or tensors by argument name, "
                f"found {type(example).__name__} of {', '.join(kinds)}; convert them, and let torch know the "
                "parts of a class of your own (torch.utils._pytree.register_pytree_node)"
            )
        names = tuple(".".join(map(_key, path)) for path in paths) if keys else ()
        flat = len(paths) == len(arguments) and all(len(path) == 1 for path in paths)
        return cls(values, names, None if flat else structure)

    @property
    def example(self) -> Example:
        """The same as an `Example`."""
        if self.structure is not None:
            arguments: Example = tree_unflatten(self.tensors, self.structure)
            return arguments
        return dict(zip(self.names, self.tensors, strict=True)) if self.names else self.tensors

    @property
    def count(self) -> int:
        """How many examples there are.

        Raises:
            InputError: there is none, or how many cannot be told, see `axes`.
        """
        return self._layout[0]

    @property
    def axes(self) -> tuple[int | None, ...]:
        """The axis of each tensor along which the examples lie; None where it is the same for all of them.

        That is the first, or the second where that alone has the size, as in a state [layers, N, hidden]. A
        tensor without axes is the same for all, and so is [1, ...] beside others of another size.

        Raises:
            InputError: there is no example, or none of this holds.
        """
        return self._layout[1]

    @cached_property
    def _layout(self) -> tuple[int, tuple[int | None, ...]]:
        """`count` and `axes`."""
        shapes = [tuple(tensor.shape) for tensor in self.tensors]
        if self.known_axes is not None:
            places = zip(shapes, self.known_axes, strict=True)
            return next((shape[axis] for shape, axis in places if axis is not None), 1), self.known_axes
        found = _find_layout(shapes)
        if found is None:
            raise InputError(
                f"inputs of shape {self.shapes}: expected tensors [N, ...] of one N, at least 1, or [layers, "
                "N, ...], and what is the same for all without axes; give as many examples in each"
            )
        return found

    @property
    def shapes(self) -> str:
        """For messages, such as "[(2, 3)]" or "{ids: (2, 16), mask: (2, 16)}"."""
        sizes = [tuple(tensor.shape) for tensor in self.tensors]
        if not self.names:
            return str(sizes)
        return f"{{{', '.join(f'{name}: {size}' for name, size in zip(self.names, sizes, strict=True))}}}"

    def call(self, function: Callable[..., Any]) -> Any:
        """Call a model, or whatever takes these arguments."""
        arguments = self.example
        return function(**arguments) if isinstance(arguments, Mapping) else function(*arguments)

    def map(self, change: Callable[[Tensor], Tensor]) -> Self:
        """Return the same arguments with other values."""
        return replace(self, tensors=tuple(change(tensor) for tensor in self.tensors))

    def batches(self, size: int) -> Iterator[Self]:
        """Yield the examples, `size` at a time."""
        return (self.rows(start, start + size) for start in range(0, self.count, size))

    def rows(self, start: int, stop: int) -> Self:
        """Return the examples from `start` up to `stop`."""
        return self.take(slice(start, stop))

    def take(self, index: slice | Tensor) -> Self:
        """Return the examples that a slice, a mask [N] or a list of places picks."""
        axes = self.axes
        tensors = tuple(
            tensor if axis is None else tensor[(slice(None),) * axis + (index,)]
            for tensor, axis in zip(self.tensors, axes, strict=True)
        )
        return replace(self, tensors=tensors, known_axes=axes)


def _find_layout(shapes: Sequence[tuple[int, ...]]) -> tuple[int, tuple[int | None, ...]] | None:
    """Return `Inputs.count` and `Inputs.axes` of tensors of these shapes, None where they cannot be told."""
    found: dict[tuple[int, tuple[int | None, ...]], int] = {}
    for count in {shape[0] for shape in shapes if shape} - {0}:
        axes = tuple(_axis(shape, count) for shape in shapes)
        shared = [shape for shape, axis in zip(shapes, axes, strict=True) if axis is None and shape]
        if all(shape[0] == 1 for shape in shared):
            found[count, axes] = len(shared)
    best = [layout for layout, shared in found.items() if shared == min(found.values())]
    return best[0] if len(best) == 1 else None


def _axis(shape: tuple[int, ...], count: int) -> int | None:
    """The axis of `count` examples, None where there is none."""
    if shape[:1] == (count,):
        return 0
    return 1 if len(shape) > 2 and shape[1] == count else None


def _tensor(value: Any, *, number: bool) -> Any:
    """Return arrays, and where `number` is set numbers, as tensors, all else as it is."""
    if isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        array = array.astype(array.dtype.newbyteorder("="), copy=not array.flags.writeable)
        try:
            return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))
        except TypeError:  # texts, objects, or numbers that torch does not know
            return value
    return torch.tensor(value) if number and isinstance(value, bool | int | float) else value


def random_inputs(example: Example, count: int, seed: int = 0) -> Example:
    """Return inputs like an example's, for a model that is to be tried on something.

    Floating-point inputs are uniform between the example's least and largest value, or in [0, 1) where it is
    constant. Integers and booleans mean something: rows of them are taken from the example, in turn. With no
    floating-point input there is nothing to draw, and the example itself is returned.

    What is the same for all rows stays as it is.

    Args:
        example: inputs [N, ...] each.
        count: rows to return.
        seed: of the draw.
    """
    inputs, generator = Inputs.of(example), torch.Generator().manual_seed(seed)
    if not any(tensor.is_floating_point() for tensor in inputs.tensors):
        return example
    rows = inputs.take(torch.arange(count) % inputs.count)

    def draw(old: Tensor, tensor: Tensor, axis: int | None) -> Tensor:
        if axis is None or not tensor.is_floating_point():
            return tensor
        low, high = float(old.min()), float(old.max())
        if low == high:
            low, high = 0.0, 1.0
        drawn = torch.rand(tensor.shape, generator=generator)
        return (low + (high - low) * drawn).to(tensor.dtype)

    drawn = map(draw, inputs.tensors, rows.tensors, inputs.axes)
    return replace(inputs, tensors=tuple(drawn)).example


def runs(model: nn.Module, inputs: Inputs) -> bool:
    """Whether a model, in evaluation mode, takes inputs."""
    try:
        with torch.no_grad(), evaluation_mode(model):
            inputs.call(model)
    except Exception:  # whatever the model raises
        return False
    return True


def taken_inputs(model: nn.Module, inputs: Inputs) -> Inputs:
    """Return inputs as a float32 model on the CPU takes them: as they are, or else as float32 on the CPU.

    So what fits a model in another precision, or on another device, fits its float32 copy as well.
    """
    same = inputs.map(
        lambda tensor: tensor.to("cpu", torch.float32 if tensor.is_floating_point() else tensor.dtype)
    )
    changed = any(new is not old for new, old in zip(same.tensors, inputs.tensors, strict=True))
    return same if changed and not runs(model, inputs) and runs(model, same) else inputs


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into evaluation mode, and every module of it back into its own mode afterwards."""
    modes = {module: module.training for module in model.modules()}
    model.eval()
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def output_tensors(output: object) -> list[tuple[str, Tensor]]:
    """Return all tensors of a model's result with their names, in order.

    Fields of a mapping, a dataclass or a named tuple have names, such as "logits" or "hidden_states.0". A
    tensor and the elements of a plain tuple or list have none: theirs is empty. Whatever is no tensor, None
    for one, is left out.
    """
    named = isinstance(output, Mapping) or is_dataclass(output) or hasattr(output, "_fields")
    return [(path if named else "", tensor) for path, tensor in _walk(output, "")]


def _key(key: object) -> str:
    """Return what leads to a part: the index, the key or the attribute's name."""
    part: object
    for kind in ("idx", "key", "name"):
        part = getattr(key, kind, None)
        if part is not None:
            return str(part)
    return str(key)


def _walk(value: object, path: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(value, Tensor):
        yield path, value
    for key, part in _parts(value):
        yield from _walk(part, f"{path}.{key}" if path else str(key))


def _parts(value: object) -> Iterable[tuple[object, object]]:
    if isinstance(value, Mapping):
        return value.items()
    if is_dataclass(value):
        return ((field.name, getattr(value, field.name)) for field in fields(value))
    if isinstance(value, tuple | list):
        names = getattr(value, "_fields", range(len(value)))  # a named tuple's
        return zip(names, value, strict=True)
    leaves, _ = tree_flatten_with_path(value)  # of a class that torch's pytree knows
    return [(".".join(map(_key, path)), part) for path, part in leaves if part is not value]
