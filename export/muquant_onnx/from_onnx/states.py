"""Inputs that are no samples: what a graph remembers from run to run, as it is before the first one."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from muquant.base.errors import InputError

_REMEMBERED = re.compile(
    r"state|hidden|cell|cache|past|memory|context|(?<![a-z])[hc](?:_?(?:\d+|n|x|in|prev))?(?![a-z])", re.I
)
_GROWING = re.compile(r"cache|past", re.I)


def is_state(value: ir.Value, graph: ir.Graph) -> bool:
    """Whether an input is called a state, and an output of `graph` has its type and rank, 2 or more."""
    shape = value.shape
    return (
        shape is not None
        and len(shape) > 1
        and value.dtype is not None
        and _REMEMBERED.search(str(value.name)) is not None
        and any(
            output.dtype == value.dtype and output.shape is not None and len(output.shape) == len(shape)
            for output in graph.outputs
        )
    )


def initial_state(value: ir.Value, graph: ir.Graph, feed: Mapping[str, NDArray[Any]]) -> NDArray[Any]:
    """Return zeros for an input that samples do not give, where it `is_state`. An open size of a cache, which
    grows, is 0.

    Args:
        value: the input.
        graph: whose input it is.
        feed: the inputs that are given.

    Raises:
        InputError: it is no state, or its size cannot be told.
    """
    name = str(value.name)
    if not is_state(value, graph):
        raise InputError(f"input {name} ({_described(value)}) is missing; give it by name, {_example(value)}")
    assert value.shape is not None
    assert value.dtype is not None
    shape = list(value.shape)
    sizes = _sizes(graph, feed)
    batch = next((array.shape[0] for array in feed.values() if array.ndim), 1)
    unnamed = [size for size in shape if not _is_stated(size) and _symbol(size) is None]
    found = [
        _size(size, sizes, batch if len(unnamed) == 1 else None, growing=bool(_GROWING.search(name)))
        for size in shape
    ]
    if None in found:
        raise InputError(
            f"input {name} ({_described(value)}) is missing, and its size cannot be told; give it by name"
        )
    return np.zeros([size or 0 for size in found], value.dtype.numpy())


def _is_stated(size: Any) -> bool:
    return isinstance(size, int) and size >= 0


def _symbol(size: Any) -> str | None:
    return size.value if isinstance(size, ir.SymbolicDim) else None


def _size(size: Any, sizes: Mapping[str, int], batch: int | None, *, growing: bool) -> int | None:
    if _is_stated(size):
        return int(size)
    symbol = _symbol(size)
    if symbol is None:
        return batch
    return sizes.get(symbol, 0 if growing else None)


def _sizes(graph: ir.Graph, feed: Mapping[str, NDArray[Any]]) -> dict[str, int]:
    """The sizes that the given inputs have, by the names that a graph states for them."""
    found: dict[str, int] = {}
    for value in graph.inputs:
        array = feed.get(str(value.name))
        stated: Sequence[Any] = () if value.shape is None or array is None else list(value.shape)
        for size, own in zip(stated, () if array is None else array.shape, strict=False):
            symbol = _symbol(size)
            if symbol is not None:
                found[symbol] = own
    return found


def _described(value: ir.Value) -> str:
    kind = "of unknown type" if value.dtype is None else value.dtype.name.lower()
    if value.shape is None:
        return kind
    return f"{kind}, {'a scalar' if not len(value.shape) else str(list(map(str, value.shape)))}"


def _example(value: ir.Value) -> str:
    if value.shape is not None and not len(value.shape):
        return "a number beside the samples, the same for all"
    return "as many as of the others"
