"""A graph on samples, float and compressed side by side, each layer as soon as those in front are done."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muquant.base.errors import InputError, first_line
from muquant.quantization.outcome import Outcome
from muquant_onnx.from_onnx.biases import find_bias
from muquant_onnx.from_onnx.edit import put_values
from muquant_onnx.from_onnx.feeds import Batch
from muquant_onnx.from_onnx.find import find_weights
from muquant_onnx.from_onnx.pieces import Piece, Pieces
from muquant_onnx.from_onnx.read import read_graph

Array = NDArray[Any]
MEMORY, SMALL = 2**29, 2**14
"""Bytes of values that are held in memory; beyond them, all but small ones are in files."""


class Replay:
    """Runs two graphs, of which one gets compressed weights, up to one value after the other.

    What pieces leave is kept until nothing to come needs it. As long as no weight in front differs, both
    have the same arrays.

    Args:
        source: the float file.
        batches: inputs.
    """

    def __init__(self, source: Path, batches: Sequence[Batch]) -> None:
        self._exact, self._changed = (read_graph(source).model for _ in range(2))
        self._pieces = Pieces(self._exact)
        self._weights = {weight.name: weight for weight in find_weights(self._changed)[0]}
        self._touched: set[str] = set()
        self._held = 0
        self._live: list[dict[str, tuple[Array, Array]]] = [
            {name: (value, value) for name, value in batch.feed.items()} for batch in batches
        ]

    def put(self, name: str, outcome: Outcome) -> None:
        """Give the changed graph what became of a weight, and of the bias of its layer."""
        weight, graph = self._weights[name], self._changed.graph
        self._touched |= {str(use.node.outputs[0].name) for use in weight.uses if use.node.graph is graph}
        bias = find_bias(weight, graph) if outcome.shift is not None else None
        if bias is not None and outcome.shift is not None:
            self._touched.add(str(bias.node.outputs[0].name))
            bias.shift(outcome.shift, weight)
        put_values(weight, outcome.tensor.dequantize())

    def to(self, wanted: str) -> Iterator[tuple[Array, Array]]:
        """Yield a value of each batch, in the float and in the compressed graph.

        Raises:
            InputError: onnxruntime does not run a piece, or leaves what is no tensor.
        """
        piece = self._pieces.next(wanted)
        if piece.nodes:
            self._run(piece)
        for batch in self._live:
            yield batch[wanted]

    def _kept(self, array: Array) -> Array:
        """Return an array, or where many are in memory the same in a file that is gone with it."""
        if self._held < MEMORY or array.nbytes < SMALL:
            self._held += array.nbytes
            return array
        with tempfile.TemporaryFile() as file:
            array.tofile(file)
            return np.memmap(file, array.dtype, "c", shape=array.shape)  # holds the file, which has no name

    def _run(self, piece: Piece) -> None:
        self._held = sum(
            each.nbytes
            for batch in self._live
            for pair in batch.values()
            for each in {id(side): side for side in pair}.values()
            if not isinstance(each, np.memmap)
        )
        example = {name: self._live[0][name][0] for name in piece.given}
        touched = not self._touched.isdisjoint(piece.nodes)
        try:
            exact, changed = piece.open(self._exact, example), None
            for batch in self._live:
                feeds = [{name: batch[name][side] for name in piece.given} for side in (0, 1)]
                found = exact.run(list(piece.left), feeds[0])
                same = all(batch[name][0] is batch[name][1] for name in piece.given)
                other = found
                if touched or not same:
                    changed = changed or (piece.open(self._changed, example) if touched else exact)
                    other = changed.run(list(piece.left), feeds[1])
                if not all(isinstance(each, np.ndarray) for each in (*found, *other)):
                    raise InputError("it leaves a value that is no tensor")
                kept = [self._kept(each) for each in found]
                changes = kept if other is found else [self._kept(each) for each in other]
                batch |= dict(zip(piece.left, zip(kept, changes, strict=True), strict=True))
                for name in [name for name in batch if not self._pieces.is_wanted(name)]:
                    if name not in piece.left:
                        del batch[name]
        except Exception as error:  # onnxruntime's errors have no common base
            raise InputError(f"a part of the graph does not run by itself: {first_line(error)}") from error
