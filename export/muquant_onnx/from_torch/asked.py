"""Which axes of a model's inputs are asked to be dynamic, in the forms that torch.export takes."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from muquant.base.errors import InputError
from muquant.models.calls import Inputs

DynamicShapes = Mapping[str, Any] | Sequence[Any]
"""Axes by the name of an input, or in the order of the inputs.

Axes are {axis: size} or a size for each axis from the first on. A size is a name, a `torch.export.Dim`,
`Dim.AUTO` or `Dim.DYNAMIC` where it may change; a number, None or `Dim.STATIC` where it may not. None for an
input keeps all of its axes. Where an input has parts its axes are those of every part, or are given part by
part. Axes that are left out of an input that is there are kept; inputs that are left out are not asked for.
"""

Place = tuple[int, int]
"""A tensor among the inputs, and an axis of it."""


@dataclass(frozen=True)
class Wanted:
    """An axis that is to be dynamic.

    Attributes:
        name: of its size; axes of one name have one size. Empty where it has none.
        least: size that it is to have.
        most: size that it is to have; None where there is no limit.
    """

    name: str = ""
    least: int = 1
    most: int | None = None


Asked = Mapping[Place, Wanted | None]
"""What is asked of an axis, None to keep its size; nothing is asked of axes that are not there."""


def labels(module: nn.Module, inputs: Inputs) -> tuple[str, ...]:
    """Return what each tensor is called: by the names of a module's arguments, where it goes by its order."""
    if inputs.names:
        return inputs.names
    return Inputs.of(dict(zip(_arguments(module, inputs), inputs.example, strict=True))).names


def read_asked(shapes: DynamicShapes | None, module: nn.Module, inputs: Inputs) -> dict[Place, Wanted | None]:
    """Return what `shapes` asks of the axes of `inputs`.

    Raises:
        InputError: there is no such input or axis, or a size is none or contradicts another.
    """
    if shapes is None:
        return {}
    called = labels(module, inputs)
    if isinstance(shapes, Mapping):
        given = shapes
    elif isinstance(shapes, Sequence) and not isinstance(shapes, str):
        arguments = _arguments(module, inputs)
        if len(shapes) != len(arguments):
            raise InputError(
                f"dynamic axes: expected those of {len(arguments)} inputs, {', '.join(arguments)}, found "
                f"those of {len(shapes)}; give them by name"
            )
        given = dict(zip(arguments, shapes, strict=True))
    else:
        raise InputError(
            "dynamic axes: expected those of each input, {input: {axis: name}}, found "
            f"{type(shapes).__name__}; give them so"
        )
    asked: dict[Place, Wanted | None] = {}
    for name, axes in given.items():
        _read(axes, str(name), called, inputs, asked)
    _agree(asked, called, inputs)
    return asked


def _arguments(module: nn.Module, inputs: Inputs) -> list[str]:
    """Return the names of the arguments of a call; numbers for what the module has none for."""
    example = inputs.example
    if isinstance(example, Mapping):
        return list(example)
    names: list[str] = []
    for parameter in inspect.signature(module.forward).parameters.values():
        if parameter.kind is parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}_{index}" for index in range(len(example) - len(names))]
        elif parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    names += [str(index) for index in range(len(names), len(example))]
    return names[: len(example)]


def _read(
    axes: object,
    name: str,
    called: Sequence[str],
    inputs: Inputs,
    asked: dict[Place, Wanted | None],
) -> None:
    """Add what is asked of the input `name`, and of its parts."""
    tensors = [index for index, label in enumerate(called) if label == name or label.startswith(f"{name}.")]
    if not tensors:
        raise InputError(f"dynamic axes: there is no input {name!r}; expected one of {', '.join(called)}")
    sizes = _sizes(axes)
    if sizes is None:
        if not isinstance(axes, Mapping | list | tuple) or name in called:
            raise InputError(
                f"dynamic axes of {name}: expected {{axis: name}} or a name for each axis, found {axes!r}"
            )
        for key, part in axes.items() if isinstance(axes, Mapping) else enumerate(axes):
            _read(part, f"{name}.{key}", called, inputs, asked)
        return
    for index in tensors:
        tensor, label = inputs.tensors[index], called[index]
        asked.update({(index, axis): None for axis in range(tensor.dim())})
        for axis, size in sizes.items():
            if not 0 <= axis < tensor.dim():
                raise InputError(
                    f"dynamic axes of {label}: it has {tensor.dim()} axes, of shape {tuple(tensor.shape)}, "
                    f"found one more for axis {axis}; number them from 0"
                )
            asked[index, axis] = _wanted(size, tensor.shape[axis], f"axis {axis} of {label}")


def _sizes(axes: object) -> dict[int, object] | None:
    """Return what is asked of each axis, or None where this is for the parts of an input."""
    if axes is None:
        return {}
    if isinstance(axes, Mapping) and all(isinstance(axis, int) for axis in axes):
        pairs = dict(axes)
    elif isinstance(axes, list | tuple):
        pairs = dict(enumerate(axes))
    else:
        return None
    return pairs if all(_is_size(size) for size in pairs.values()) else None


def _is_size(size: object) -> bool:
    return size is None or isinstance(size, str | int | torch.export.Dim | type(torch.export.Dim.AUTO))


def _wanted(size: Any, found: int, where: str) -> Wanted | None:
    """Read the size of one axis, which is `found` in the example."""
    if size is None or size == torch.export.Dim.STATIC:
        return None
    if isinstance(size, int):
        if size != found:
            raise InputError(
                f"{where} is {found} in the example, found {size} as its fixed size; give {found}"
            )
        return None
    if isinstance(size, str):
        if not size.isidentifier():
            raise InputError(
                f"{where}: expected a name of letters, digits and _ for its size, found {size!r}; rename it"
            )
        return Wanted(size)
    name = getattr(size, "__name__", "")
    least, most = (bound if isinstance(bound, int) else None for bound in (size.min, size.max))
    return Wanted(name if name.isidentifier() else "", max(least or 1, 1), most)


def _agree(asked: Asked, called: Sequence[str], inputs: Inputs) -> None:
    """Refuse a name for two sizes."""
    first: dict[str, Place] = {}
    for place, wanted in asked.items():
        if wanted is not None and wanted.name:
            before = first.setdefault(wanted.name, place)
            sizes = [inputs.tensors[index].shape[axis] for index, axis in (before, place)]
            if sizes[0] != sizes[1]:
                raise InputError(
                    f"dynamic axes: {wanted.name} is {sizes[0]} in {called[before[0]]} and {sizes[1]} in "
                    f"{called[place[0]]}; expected one size, give the axes two names"
                )
