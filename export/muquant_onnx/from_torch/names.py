"""Sizes of a graph's inputs: their names, and what is said of them."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import onnx_ir as ir
import sympy

from muquant_onnx.from_torch.axes import Axes


@dataclass(frozen=True)
class InputAxis:
    """An axis of an input of an exported file.

    Attributes:
        input: name of the input.
        axis: from 0.
        size: the name of its size where that may change, else its size.
        least: size that it may have.
        most: size that it may have; None where no limit is known.
        reason: why its size is fixed, or "" where it is not.
    """

    input: str
    axis: int
    size: int | str
    least: int
    most: int | None
    reason: str = ""


def name_sizes(model: ir.Model, axes: Axes) -> None:
    """Give the dynamic sizes the names that were asked for, in place, and one name to what has one size."""
    names: dict[str, str] = {}
    symbols: dict[sympy.Symbol, str] = {}
    for (index, axis), size in axes.sizes.items():
        stated = _stated(model, index, axis)
        wanted = axes.asked.get((index, axis))
        if wanted is not None and wanted.name:
            names.setdefault(stated, wanted.name)
            symbols.setdefault(size, names[stated])
    for (index, axis), size in axes.sizes.items():
        if size.atoms(sympy.Dummy) - set(symbols):
            continue  # nobody has a name for it
        known = size.subs({symbol: sympy.Symbol(name) for symbol, name in symbols.items()})
        names.setdefault(_stated(model, index, axis), str(known))
    names = {before: after for before, after in names.items() if before != after}
    if not names:
        return
    for value in _values(model):
        if value.shape is not None:
            value.shape = ir.Shape([_renamed(dim, names) for dim in value.shape])


def forget_sizes(model: ir.Model, other: Mapping[int, set[int]]) -> bool:
    """Leave out sizes that are stated of outputs and do not hold, in place; return whether there are any.

    Shapes inside the graph go with them: onnxruntime would infer those of the outputs again.
    """
    if not any(other.values()):
        return False
    for node in model.graph.all_nodes():
        for value in node.outputs:
            if not value.is_graph_output():
                value.shape = None
    for index, axes in other.items():
        value = model.graph.outputs[index]
        if value.shape is not None:
            value.shape = ir.Shape([None if axis in axes else dim for axis, dim in enumerate(value.shape)])
    return True


def describe_axes(model: ir.Model, axes: Axes) -> tuple[InputAxis, ...]:
    """Say of every axis of every input whether it is dynamic."""
    described = []
    for index, tensor in enumerate(axes.inputs.tensors):
        name = str(model.graph.inputs[index].name)
        for axis, size in enumerate(tensor.shape):
            place = (index, axis)
            if place in axes.fixed:
                described.append(InputAxis(name, axis, size, size, size, axes.fixed[place]))
            else:
                least, most = axes.limits(place)
                described.append(InputAxis(name, axis, _stated(model, index, axis), least, most))
    return tuple(described)


def _stated(model: ir.Model, index: int, axis: int) -> str:
    """Return the size of an input's axis as the graph states it."""
    shape = model.graph.inputs[index].shape
    assert shape is not None
    dim = shape[axis]
    return str(dim.value if isinstance(dim, ir.SymbolicDim) else dim)


def _renamed(dim: int | ir.SymbolicDim, names: Mapping[str, str]) -> int | str | None:
    if isinstance(dim, int):
        return dim
    if dim.value is None:
        return None
    text = str(dim.value)
    if text in names:
        return names[text]
    return re.sub(r"[A-Za-z_]\w*", lambda match: _operand(names.get(match[0], match[0])), text)


def _operand(text: str) -> str:
    return text if re.fullmatch(r"\w+", text) else f"({text})"


def _values(model: ir.Model) -> Iterator[ir.Value]:
    yield from model.graph.inputs
    for node in model.graph.all_nodes():
        yield from node.outputs
