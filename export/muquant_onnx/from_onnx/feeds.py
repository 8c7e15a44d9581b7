"""Samples for the inputs of a graph, in batches that it takes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from muquant.base.errors import InputError, first_line
from muquant.models.calls import Inputs
from muquant_onnx.serving.sessions import load_session

BATCH_SIZE = 32
"""Samples at a time, where the graph leaves it open."""


@dataclass(frozen=True, eq=False)
class Feeds:
    """Samples by the names of a graph's inputs.

    Attributes:
        arrays: name -> samples [N, ...].
        batch_size: samples at a time; the last batch is smaller only where the graph leaves it open.
        fixed: whether the graph takes batches of this size alone.
    """

    arrays: Mapping[str, NDArray[Any]]
    batch_size: int
    fixed: bool

    @classmethod
    def of(cls, graph: ir.Graph, samples: Inputs, source: Path) -> "Feeds":
        """Fit samples to the inputs of `graph`, by name, or in order where they have none.

        Raises:
            InputError: a name, a shape or a type does not fit; `source` is named.
        """
        wanted = {str(value.name): value for value in graph.inputs if value.const_value is None}
        names = samples.names or tuple(wanted)[: len(samples.tensors)]
        if set(names) != set(wanted) or len(names) != len(samples.tensors):
            found = ", ".join(samples.names) or f"{len(samples.tensors)} without names"
            raise InputError(
                f"calibration of {source}: expected inputs {', '.join(wanted)}, found {found}; give an "
                "array for each"
            )
        arrays = {name: tensor.numpy() for name, tensor in zip(names, samples.tensors, strict=True)}
        for name, array in arrays.items():
            _check(name, array, wanted[name], source)
        sizes = {_first_size(value) for value in wanted.values()} - {None}
        if len(sizes) > 1:
            raise InputError(
                f"calibration of {source}: its inputs have first sizes {sorted(map(str, sizes))}; expected "
                "one, the batch"
            )
        size = sizes.pop() if sizes else None
        if size is not None and samples.count < size:
            raise InputError(
                f"calibration of {source}: it takes {size} samples at a time, and {samples.count} are "
                f"there to fit to or to judge by; give at least {4 * size}"
            )
        return cls(arrays, size or BATCH_SIZE, size is not None)

    def batches(self) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the inputs of each batch by name."""
        count = len(next(iter(self.arrays.values())))
        stop = count - count % self.batch_size if self.fixed else count
        for start in range(0, stop, self.batch_size):
            yield {name: array[start : start + self.batch_size] for name, array in self.arrays.items()}

    def run(self, path: Path, setting: str = "unoptimized") -> Iterator[list[NDArray[Any]]]:
        """Yield all outputs of the model at `path` for each batch, under a setting of `RUNTIME_SETTINGS`.

        Raises:
            InputError: onnxruntime does not run it.
        """
        session = load_session(path, setting)
        for feed in self.batches():
            try:
                outputs: list[NDArray[Any]] = session.run(None, feed)
            except Exception as error:  # onnxruntime's errors have no common base
                raise InputError(
                    f"calibration: onnxruntime does not run the graph on the samples: {first_line(error)}; "
                    "give what it was trained on"
                ) from error
            yield outputs


def _first_size(value: ir.Value) -> int | None:
    size = value.shape[0] if value.shape is not None and len(value.shape) else None
    return size if isinstance(size, int) else None


def _check(name: str, array: NDArray[Any], value: ir.Value, source: Path) -> None:
    expected = None if value.dtype is None else value.dtype.numpy()
    if expected is not None and array.dtype != expected:
        raise InputError(
            f"calibration of {source}: input {name} is {array.dtype}, expected {np.dtype(expected)}; "
            "convert it"
        )
    if value.shape is None:
        return
    sizes = [size if isinstance(size, int) else None for size in value.shape]
    fits = len(sizes) == array.ndim and all(
        size in (None, found) for size, found in zip(sizes[1:], array.shape[1:], strict=True)
    )
    if not fits:
        wanted = ", ".join(["N", *("any" if size is None else str(size) for size in sizes[1:])])
        found = ", ".join(["N", *map(str, array.shape[1:])])
        raise InputError(
            f"calibration of {source}: input {name} has the shape [{found}], expected [{wanted}]; give it in "
            "that shape"
        )
