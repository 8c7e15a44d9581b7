"""Samples for the inputs of a graph, in batches that it takes."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from muquant.base.errors import InputError, first_line, naming
from muquant.compression.calibration.batches import BATCH_SIZE, Samples, rows_of
from muquant.models.arguments import Arguments
from muquant.models.calls import Inputs
from muquant_onnx.from_onnx.states import initial_state
from muquant_onnx.serving.sessions import load_session

Feed = Mapping[str, NDArray[Any]]
"""Arrays by the names of a graph's inputs."""


@dataclass(frozen=True, eq=False)
class Batch:
    """The inputs of one run.

    Attributes:
        feed: them.
        count: how many samples they are.
        filled: the number with others that are in another batch and follow these, where the graph takes
            batches of one size alone; None where none do.
    """

    feed: Feed
    count: int
    filled: int | None = None

    def own(self, outputs: Sequence[Any]) -> list[Any]:
        """Return outputs; where the batch was filled up, tensors [N, ...] without what filled it."""
        if self.filled is None:
            return list(outputs)
        return [
            output[: self.count]
            if isinstance(output, np.ndarray | Tensor) and output.shape[:1] == (self.filled,)
            else output
            for output in outputs
        ]


@dataclass(frozen=True, eq=False)
class Feeds:
    """Samples by the names of a graph's inputs.

    Attributes:
        batches: one for each run.
        zeros: inputs that the samples do not give, and that are zero: states that a graph returns as well.
    """

    batches: Sequence[Batch]
    zeros: tuple[str, ...]

    @classmethod
    def of(cls, graph: ir.Graph, samples: Samples, source: Path, most: int = BATCH_SIZE) -> "Feeds":
        """Fit samples to the inputs of `graph`, by name, or in order where they have none.

        Floats of another width are cast, and so are integers, where no value is lost. At most `most` samples
        are in a batch, where batches may be cut.

        Raises:
            InputError: a name, a shape or a type does not fit, or an input is missing; `source` is named.
        """
        inputs = _inputs(graph)
        with naming(f"calibration of {source}"):
            samples, size = _sized(samples, inputs)
            parts = list(_batches(samples, inputs, size, most))
            given = set(_named(parts[0][0], inputs))
            batches = [
                Batch(_feed(part, graph), count or rows_of(part), size if count else None)
                for part, count in parts
            ]
        return cls(batches, tuple(name for name in inputs if name not in given))

    def run(self, path: Path, setting: str = "unoptimized") -> Iterator[list[Any]]:
        """Yield all outputs of the model at `path` for each batch, see `Batch.own`, under a setting of
        `RUNTIME_SETTINGS`.

        Raises:
            InputError: onnxruntime does not run it.
        """
        return self.answers(load_session(path, setting))

    def answers(self, session: ort.InferenceSession) -> Iterator[list[Any]]:
        """`run` with a session that is open."""
        for batch in self.batches:
            try:
                outputs = session.run(None, batch.feed)
            except Exception as error:  # onnxruntime's errors have no common base
                raise InputError(
                    f"calibration: onnxruntime does not run the graph on the samples: {first_line(error)}; "
                    "give what it was trained on"
                ) from error
            yield batch.own(outputs)


def graph_arguments(graph: ir.Graph) -> Arguments:
    """Return what a graph takes."""
    inputs = _inputs(graph)
    ranks = {name: None if value.shape is None else len(value.shape) for name, value in inputs.items()}
    return Arguments(len(inputs), len(inputs), tuple(inputs), ranks)


def _inputs(graph: ir.Graph) -> dict[str, ir.Value]:
    return {str(value.name): value for value in graph.inputs if value.const_value is None}


def _named(part: Inputs, inputs: Mapping[str, ir.Value]) -> dict[str, Tensor]:
    names = part.names or tuple(inputs)[: len(part.tensors)]
    if not set(names) <= set(inputs) or len(names) != len(part.tensors):
        found = ", ".join(part.names) or f"{len(part.tensors)} without names"
        raise InputError(
            f"expected inputs {', '.join(inputs)}, found {found}; leave out what it does not take"
        )
    return dict(zip(names, part.tensors, strict=True))


def _stated(value: ir.Value) -> list[int | None] | None:
    """The sizes that a graph states, None for those it leaves open; None where it states no shape."""
    if value.shape is None:
        return None
    return [size if isinstance(size, int) and size >= 0 else None for size in value.shape]


def _sized(samples: Samples, inputs: Mapping[str, ir.Value]) -> tuple[Samples, int | None]:
    """Return samples, and the only number of them that a graph takes at a time; None where it is open, or
    cannot be told. What it takes one of beside several samples is the same for all."""
    part = samples.parts[0]
    named = _named(part, inputs)
    try:
        axes = part.axes
    except InputError:
        return samples, None
    sizes: dict[str, int] = {}
    for (name, tensor), axis in zip(named.items(), axes, strict=True):
        stated = _stated(inputs[name])
        size = None if axis is None or stated is None or len(stated) != tensor.dim() else stated[axis]
        if size is not None:
            sizes[name] = size
    several = {name: size for name, size in sizes.items() if size != 1}
    if len(set(several.values())) > 1:
        found = ", ".join(f"{size} of {name}" for name, size in several.items())
        raise InputError(f"its inputs take different numbers of samples, {found}; expected one, the batch")
    if several and len(several) < len(sizes):
        own = [None if sizes.get(name) == 1 else axis for name, axis in zip(named, axes, strict=True)]
        samples = replace(
            samples, parts=tuple(replace(each, known_axes=tuple(own)) for each in samples.parts)
        )
    return samples, next(iter((several or sizes).values()), None)


def _batches(
    samples: Samples, inputs: Mapping[str, ir.Value], size: int | None, most: int
) -> Iterator[tuple[Inputs, int | None]]:
    """Yield what to run, with the number of samples in it where others had to fill it up."""
    as_given = not samples.whole and all(_fits(part, inputs) for part in samples.parts)
    if size is None or as_given:
        yield from ((part, None) for part in samples.batches(most))
        return
    for group in samples.joined():
        for start in range(0, group.count, size):
            rows = min(size, group.count - start)
            if rows == size:
                yield group.rows(start, start + size), None
            else:
                yield group.take((start + torch.arange(size)) % group.count), rows


def _fits(part: Inputs, inputs: Mapping[str, ir.Value]) -> bool:
    """Whether a batch has all sizes that are stated."""
    pairs = [(tensor, _stated(inputs[name])) for name, tensor in _named(part, inputs).items()]
    return all(stated is None or _agree(stated, tuple(tensor.shape)) for tensor, stated in pairs)


def _agree(stated: Sequence[int | None], shape: tuple[int, ...]) -> bool:
    return len(stated) == len(shape) and all(
        size in (None, found) for size, found in zip(stated, shape, strict=True)
    )


def _feed(part: Inputs, graph: ir.Graph) -> Feed:
    """Return arrays for all inputs; those that are not given are zeros."""
    inputs = _inputs(graph)
    named = _named(part, inputs)
    try:
        axes: Sequence[int | None] = part.axes
    except InputError:
        axes = [None] * len(named)
    feed = {
        name: _array(name, tensor, inputs[name], axis)
        for (name, tensor), axis in zip(named.items(), axes, strict=True)
    }
    missing = {name: value for name, value in inputs.items() if name not in feed}
    return feed | {name: initial_state(value, graph, feed) for name, value in missing.items()}


def _array(name: str, tensor: Tensor, value: ir.Value, axis: int | None) -> NDArray[Any]:
    """Return a tensor as an array of the type and shape that an input has; samples lie along `axis`."""
    stated = _stated(value)
    if stated is not None and not _agree(stated, tuple(tensor.shape)):
        wanted, found = (
            ", ".join(
                "N" if place == axis else "any" if size is None else str(size)
                for place, size in enumerate(each)
            )
            for each in (stated, tensor.shape)
        )
        raise InputError(f"input {name} has the shape [{found}], expected [{wanted}]; give it in that shape")
    array: NDArray[Any] = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
    expected = array.dtype if value.dtype is None else np.dtype(value.dtype.numpy())
    if array.dtype == expected:
        return array
    kinds = [
        np.issubdtype(array.dtype, kind) and np.issubdtype(expected, kind)
        for kind in (np.floating, np.integer)
    ]
    if not any(kinds):
        raise InputError(f"input {name} is {array.dtype}, expected {expected}; convert it")
    with np.errstate(over="ignore"):
        cast = array.astype(expected)
    lost = np.isinf(cast) & np.isfinite(array) if kinds[0] else cast != array
    if lost.any():
        raise InputError(
            f"input {name} is {array.dtype}, expected {expected}, which does not hold {array[lost].flat[0]}; "
            "scale it"
        )
    return cast
