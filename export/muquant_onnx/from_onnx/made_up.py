"""Inputs for a graph of which only its own types and shapes are known."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray

from muquant.models.leaves import from_0_to_1, leaves
from muquant_onnx.from_onnx.constants import whole_numbers
from muquant_onnx.from_onnx.feeds import Feed
from muquant_onnx.serving.sessions import silent_run

Array = NDArray[Any]
Answered = tuple[Feed, list[Any]]
"""Inputs by name, and the outputs."""

_MOST = 1 << 24
"""Numbers that an input may have."""
_TYPES = {
    "tensor(bool)": "bool",
    "tensor(double)": "float64",
    "tensor(float)": "float32",
    "tensor(float16)": "float16",
    **{f"tensor({sign}int{bits})": f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)},
}
_MOVES = {"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose"}
"""Operators that leave numbers what they are."""
_LENGTHS = ("seq", "past", "len", "time")
"""What sizes of pictures are not called."""


@dataclass(frozen=True)
class _Sizes:
    """What is tried for sizes that a graph leaves open.

    Attributes:
        batch: the first.
        length: others.
        side: the others of floats with four axes or more, which are pictures mostly.
        named: those that have a name, which is the same size wherever it stands.
    """

    batch: int
    length: int
    side: int
    named: dict[str, int] = field(default_factory=dict)

    def shape(self, given: ort.NodeArg, batched: bool) -> list[int]:
        """Return the shape of an input.

        Args:
            given: it.
            batched: whether another input leaves its first size open. Where this one does not, as a state
                [layers, batch, hidden], the first size that it leaves open is the batch.
        """
        open_axes = [axis for axis, size in enumerate(given.shape) if not _is_stated(size)]
        batch = open_axes[0] if open_axes and (open_axes[0] == 0 or batched) else None
        free = self.side if len(given.shape) > 3 and "float" in given.type else self.length
        return [
            self._size(size, self.batch if axis == batch else free) for axis, size in enumerate(given.shape)
        ]

    def _size(self, size: object, free: int) -> int:
        if _is_stated(size):
            return int(str(size))
        if not isinstance(size, str) or size in ("", "?"):
            return free
        parts = [part.strip() for part in size.split("+")]
        if len(parts) > 1:  # such as "past + sequence"
            return sum(int(part) if part.isdigit() else self._size(part, free) for part in parts)
        lengthy = free == self.side and any(word in size.lower() for word in _LENGTHS)
        return self.named.setdefault(size, self.length if lengthy else free)


_SIZES = (
    (2, 32, 160),
    (1, 32, 160),
    (2, 512, 224),
    (1, 512, 224),
    (2, 64, 64),
    (2, 8, 8),
    (2, 2, 2),
    (1, 1, 1),
    (8, 8, 8),
    (32, 32, 32),
    (1, 16000, 640),
)
"""Those of `_Sizes`, in this order."""


def whole_inputs(graph: ir.Graph) -> dict[str, Sequence[int]]:
    """Return what integer inputs of a graph may be: the places of the tables that they look up by Gather, and
    what they are compared with by Equal. What is used for neither is not there."""
    found: dict[str, Sequence[int]] = {}
    for value in graph.inputs:
        if value.dtype is not None and value.dtype.is_integer() and value.const_value is None:
            rows: list[int | None] = []
            equal: list[int] = []
            for node, place in _users(value):
                if node.op_type == "Gather" and place == 1:
                    rows.append(_rows(node))
                elif node.op_type == "Equal" and (other := whole_numbers(node.inputs[1 - place])) is not None:
                    equal += other.reshape(-1).tolist()
            known = [count for count in rows if count]
            if known:
                found[str(value.name)] = range(min(known))
            elif equal:
                found[str(value.name)] = sorted(set(equal))
    return found


def _users(value: ir.Value) -> Iterator[tuple[ir.Node, int]]:
    """Yield the nodes that use a value, or what is made of it by `_MOVES`, and the place of it there."""
    waiting = [value]
    while waiting:
        for node, place in waiting.pop().uses():
            if node.op_type in _MOVES and place == 0:
                waiting += node.outputs
            else:
                yield node, place


def _rows(gather: ir.Node) -> int | None:
    """Return how many rows a table has, where that is known."""
    table = gather.inputs[0]
    axis = gather.attributes.get_int("axis", 0)
    size = None if table is None or table.shape is None else table.shape[axis]
    return size if isinstance(size, int) else None


def made_up(
    session: ort.InferenceSession,
    count: int,
    whole: Mapping[str, Sequence[int]] | None = None,
    fits: Callable[[list[Any]], bool] = lambda _: True,
    zeros: Collection[str] = (),
) -> Iterator[Answered]:
    """Yield inputs that a model runs on, and its outputs; nothing where it runs on none that are made up.

    Floats of four axes with one or three channels are pictures (`leaves`); others are normal, but for masks,
    which are ones, as those of integers are. Integers are what `whole` says, else any byte, 0 or 1.

    Args:
        session: of the model.
        count: of inputs, all of one size, of which those that it does not run on are left out.
        whole: what integer inputs may be, see `whole_inputs`.
        fits: whether the first outputs will do; else other sizes are tried.
        zeros: inputs that are zero: states, as they are before the first run.
    """
    quiet = silent_run()  # a size that does not fit is no news
    for sizes in _SIZES:
        random, number = np.random.default_rng(0), 0
        for _ in range(count):
            try:
                feed = _feed(session, _Sizes(*sizes), random, whole or {}, zeros)
                outputs = session.run(None, feed, quiet)
            except Exception:  # onnxruntime's errors have no common base
                if number:
                    continue
                break
            if not number and not fits(outputs):
                break
            number += 1
            yield feed, outputs
        if number:
            return


def resemble(feed: Feed, whole: Collection[str], zeros: Collection[str]) -> bool:
    """Whether inputs that were made up are like what a network is for, so that it may be shaped by them:
    pictures, or else places of tables, as tokens are. Other numbers, of sounds or features, are not normal:
    networks that were shaped by such answered worse than those that were shaped by nothing.

    Args:
        feed: inputs by name.
        whole: names of those that are places of tables.
        zeros: names of states.
    """
    told = {name: each for name, each in feed.items() if name not in zeros and "mask" not in name.lower()}
    floats = [each for each in told.values() if np.issubdtype(each.dtype, np.floating)]
    return all(_is_picture(each.shape) for each in floats) if floats else bool({*told} & {*whole})


def _feed(
    session: ort.InferenceSession,
    sizes: _Sizes,
    random: np.random.Generator,
    whole: Mapping[str, Sequence[int]],
    zeros: Collection[str],
) -> Feed:
    given = session.get_inputs()
    batched = any(each.shape and not _is_stated(each.shape[0]) for each in given)
    return {
        each.name: _array(each, sizes.shape(each, batched), random, whole.get(each.name), each.name in zeros)
        for each in given
    }


def _array(
    given: ort.NodeArg,
    shape: Sequence[int],
    random: np.random.Generator,
    whole: Sequence[int] | None,
    zero: bool,
) -> Array:
    if math.prod(shape) > _MOST:
        raise ValueError(shape)
    dtype = np.dtype(_TYPES[given.type])
    if zero:
        values: Array = np.zeros(shape)
    elif "mask" in given.name.lower():
        values = np.ones(shape)
    elif np.issubdtype(dtype, np.floating):
        values = _picture(shape, random) if _is_picture(shape) else random.standard_normal(shape)
    elif whole is not None:
        values = random.choice(np.asarray(whole), size=shape)
    else:
        values = random.integers(256 if dtype == np.uint8 else 2, size=shape)
    return np.asarray(values).astype(dtype)


def _is_picture(shape: Sequence[int]) -> bool:
    """Whether a shape is that of pictures in grey or colour, with channels first or last."""
    return len(shape) == 4 and min(shape[1:3]) > 0 and bool({shape[1], shape[3]} & {1, 3})


def _picture(shape: Sequence[int], random: np.random.Generator) -> Array:
    """Return pictures of shapes; from 0 to 1, or of mean 0 and deviation 1: networks take either."""
    last = shape[1] not in (1, 3)
    count, channels, height, width = (shape[0], shape[3], *shape[1:3]) if last else shape
    drawn: Array = leaves(random, count, channels, height, width)
    if random.random() < 0.5:
        drawn = from_0_to_1(drawn)
    return drawn.transpose(0, 2, 3, 1) if last else drawn


def _is_stated(size: object) -> bool:
    return isinstance(size, int) and size >= 0
