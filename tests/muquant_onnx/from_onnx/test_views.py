"""Which numbers of a stored tensor are a channel of an operator, through any Transpose and Reshape."""

import math
from collections.abc import Iterator
from itertools import combinations
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings, strategies as st
from numpy.typing import NDArray

from muquant.format.channels import Channels
from muquant_onnx.from_onnx.steps import Step, trace_back, view_through
from muquant_onnx.from_onnx.views import finer_channels, stored_channels


def _factors(data: st.DataObject, size: int) -> list[int]:
    """A shape of `size` elements."""
    shape = []
    while size > 1:
        factor = data.draw(st.sampled_from([part for part in range(1, size + 1) if size % part == 0]))
        shape.append(factor)
        size //= factor
    return shape or [1]


def _channel_of_each(shape: tuple[int, ...], channels: Channels) -> NDArray[np.int64]:
    """The channel of each number of a tensor, by its place."""
    places = np.indices(shape)
    block = [places[0] // (shape[0] // channels.groups)] if channels.groups > 1 else []
    sizes = [channels.groups] if channels.groups > 1 else []
    own = [*block, *(places[axis] for axis in channels.axes)]
    return np.ravel_multi_index(own, [*sizes, *(shape[axis] for axis in channels.axes)])  # type: ignore[no-any-return]


@settings(deadline=None, max_examples=300)
@given(data=st.data(), shape=st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4))
def test_channels_are_followed_through_any_chain(data: st.DataObject, shape: list[int]) -> None:
    """Oracle: the number of each place of the stored tensor, moved by numpy as the chain moves the tensor."""
    stored = value = ir.Value(name="w")
    moved = np.arange(math.prod(shape)).reshape(shape)
    reshapes = 0
    for _ in range(data.draw(st.integers(0, 4))):
        if data.draw(st.booleans()):
            order = data.draw(st.permutations(range(moved.ndim)))
            node = ir.node("Transpose", [value], {"perm": list(order)})
            moved = moved.transpose(order)
        else:
            sizes = _factors(data, math.prod(shape))
            asked = list(sizes)
            if data.draw(st.booleans()):
                asked[data.draw(st.integers(0, len(sizes) - 1))] = -1
            target = ir.Value(name="shape", const_value=ir.tensor(np.array(asked, np.int64)))
            node = ir.node("Reshape", [value, target])
            moved = moved.reshape(sizes)
            reshapes += 1
        value = node.outputs[0]
    ((source, path),) = trace_back(value)
    assert source is stored
    view = view_through(tuple(shape), path)
    assert view is not None
    assert view.sizes == moved.shape
    for axis, parts in enumerate(view.axes):
        if parts is None and reshapes < 2:  # the second cannot put together again what the first has torn
            assert not _can_be_said(tuple(shape), moved, Channels((axis,)))
    groups = [part for part in range(2, moved.shape[0] + 1) if moved.shape[0] % part == 0]
    cut = data.draw(st.sampled_from([1, *groups]))
    places = st.lists(st.integers(0, moved.ndim - 1), min_size=int(cut == 1), unique=True)
    axes = data.draw(places.filter(lambda own: cut == 1 or 0 not in own))
    seen = Channels(tuple(sorted(axes)), cut)
    found = stored_channels(view, seen, tuple(shape))

    if found is None:
        torn = any(view.axes[axis] is None for axis in [*seen.axes, *([0] if cut > 1 else [])])
        assert torn or reshapes > 1 or not _can_be_said(tuple(shape), moved, seen)
        return
    of_each, wanted = _channel_of_each(tuple(shape), found.channels).ravel(), _stored(moved, seen)
    assert _alike(of_each, wanted)
    assert found.in_order == bool((of_each == wanted).all())


def _stored(moved: NDArray[np.int64], seen: Channels) -> NDArray[np.int64]:
    """The channel of each number of the stored tensor, by what is seen of it."""
    channel = np.empty(moved.size, np.int64)
    channel[moved.ravel()] = _channel_of_each(moved.shape, seen).ravel()
    return channel


def _can_be_said(shape: tuple[int, ...], moved: NDArray[np.int64], seen: Channels) -> bool:
    """Whether some channels of the stored tensor are those that are seen."""
    wanted = _stored(moved, seen)
    return any(_alike(_channel_of_each(shape, each).ravel(), wanted) for each in _all_channels(shape))


def _alike(one: NDArray[np.int64], other: NDArray[np.int64]) -> bool:
    """Whether both part the places in the same way, whatever the numbers of the parts."""
    pairs = {*zip(one.tolist(), other.tolist(), strict=True)}
    return len(pairs) == len({*one.tolist()}) == len({*other.tolist()})


def _all_channels(shape: tuple[int, ...]) -> Iterator[Channels]:
    for groups in range(1, shape[0] + 1):
        for count in range(int(groups == 1), len(shape) + 1):
            for axes in combinations(range(int(groups > 1), len(shape)), count):
                if shape[0] % groups == 0:
                    yield Channels(axes, groups)


def _ints(*values: int) -> ir.Value:
    return ir.Value(name="ints", const_value=ir.tensor(np.array(values, np.int64)))


def _drawn_step(
    data: st.DataObject, value: ir.Value, moved: NDArray[np.int64]
) -> tuple[ir.Node, int, NDArray[np.int64]]:
    """A node behind `value`, which of its outputs goes on, and what numpy makes of it."""
    rank = moved.ndim
    axis = data.draw(st.integers(0, rank - 1))
    size = moved.shape[axis]
    match data.draw(
        st.sampled_from(["Transpose", "Reshape", "Flatten", "Slice", "Gather", "Split", "Unsqueeze"])
    ):
        case "Transpose":
            order = data.draw(st.permutations(range(rank)))
            return ir.node("Transpose", [value], {"perm": list(order)}), 0, moved.transpose(order)
        case "Reshape":
            sizes = _factors(data, moved.size)
            return ir.node("Reshape", [value, _ints(*sizes)]), 0, moved.reshape(sizes)
        case "Flatten":
            flat = moved.reshape(math.prod(moved.shape[:axis]), -1)
            return ir.node("Flatten", [value], {"axis": axis}), 0, flat
        case "Slice":
            start, stop = sorted(data.draw(st.tuples(st.integers(0, size - 1), st.integers(1, size))))
            places = slice(start, max(stop, start + 1), data.draw(st.integers(1, 2)))
            bounds = [_ints(places.start), _ints(places.stop), _ints(axis), _ints(places.step)]
            return ir.node("Slice", [value, *bounds]), 0, moved[(slice(None),) * axis + (places,)]
        case "Gather":
            one = data.draw(st.booleans())
            few = data.draw(st.lists(st.integers(0, size - 1), min_size=1, unique=True))
            taken = np.array(few[0]) if one and rank > 1 else np.array(few)
            indices = ir.Value(name="i", const_value=ir.tensor(taken))
            return ir.node("Gather", [value, indices], {"axis": axis}), 0, moved.take(taken, axis)
        case "Split":
            first = data.draw(st.integers(1, size))
            sizes, output = [first, size - first], data.draw(st.integers(0, int(first < size)))
            node = ir.node("Split", [value, _ints(*sizes)], {"axis": axis}, num_outputs=2)
            return node, output, np.split(moved, [first], axis)[output]
        case _:
            return ir.node("Unsqueeze", [value, _ints(axis)]), 0, np.expand_dims(moved, axis)


@settings(deadline=None, max_examples=300)
@given(data=st.data(), shape=st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4))
def test_no_channel_of_what_is_stored_is_of_two_that_are_seen(data: st.DataObject, shape: list[int]) -> None:
    """Where only some of a tensor is seen, channels may be finer than the operator's, never coarser."""
    stored = value = ir.Value(name="w", const_value=ir.tensor(np.zeros(shape, np.float32)))
    moved = np.arange(math.prod(shape)).reshape(shape)
    for _ in range(data.draw(st.integers(1, 5))):
        node, output, moved = _drawn_step(data, value, moved)
        value = node.outputs[output]
    ((source, path),) = trace_back(value)
    assert source is stored
    view = view_through(tuple(shape), path)
    assert view is not None
    assert view.sizes == moved.shape
    axes = data.draw(st.lists(st.integers(0, moved.ndim - 1), min_size=1, unique=True))
    seen = Channels(tuple(sorted(axes)))
    found = stored_channels(view, seen, tuple(shape)) or finer_channels(view, seen, tuple(shape))
    if found is None:
        return
    of_stored = _channel_of_each(tuple(shape), found.channels).ravel()[moved.ravel()]
    of_seen = _channel_of_each(moved.shape, seen).ravel()
    assert len({*zip(of_stored.tolist(), of_seen.tolist(), strict=True)}) == len({*of_stored.tolist()})
    if found.in_order:
        np.testing.assert_array_equal(of_stored, of_seen)


@pytest.mark.parametrize(
    ("op", "attributes", "wanted"),
    [
        ("Transpose", {"perm": [0, 0]}, None),
        ("Transpose", {"perm": [1, 0, 2]}, None),
        ("Reshape", {}, [5, 5]),
        ("Reshape", {}, [4, 6, 0]),
        ("Reshape", {"allowzero": 1}, [0, -1, -1]),
        ("Cast", {"to": ir.DataType.INT32.value}, None),
    ],
)
def test_chains_that_make_no_sense_are_no_views(
    op: str, attributes: dict[str, Any], wanted: list[int] | None
) -> None:
    shape = [] if wanted is None else [ir.Value(name="s", const_value=ir.tensor(np.array(wanted, np.int64)))]
    node = ir.node(op, [ir.Value(name="w"), *shape], attributes)
    assert view_through((4, 6), [Step(node, 0, 0, ())]) is None
