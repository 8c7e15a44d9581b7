"""Which axis of a stored tensor an operator sees, through any chain of Transpose and Reshape."""

import math
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
from hypothesis import given, settings, strategies as st

from muquant_onnx.from_onnx.constants import trace_back, view_through


def _factors(data: st.DataObject, size: int) -> list[int]:
    """A shape of `size` elements."""
    shape = []
    while size > 1:
        factor = data.draw(st.sampled_from([part for part in range(1, size + 1) if size % part == 0]))
        shape.append(factor)
        size //= factor
    return shape or [1]


def path_is_simple(path: tuple[ir.Node, ...]) -> bool:
    """Whether it cannot put together again what it has torn apart, which counts as torn."""
    return [node.op_type for node in path].count("Reshape") < 2


@settings(deadline=None, max_examples=100)
@given(data=st.data(), shape=st.lists(st.integers(1, 4), min_size=1, max_size=4))
def test_an_axis_is_followed_through_any_chain(data: st.DataObject, shape: list[int]) -> None:
    """Oracle: the places along each stored axis, moved by numpy as the chain moves the tensor."""
    stored = value = ir.Value(name="w")
    moved = list(np.indices(shape))
    for _ in range(data.draw(st.integers(0, 4))):
        rank = moved[0].ndim
        if data.draw(st.booleans()):
            order = data.draw(st.permutations(range(rank)))
            node = ir.node("Transpose", [value], {"perm": list(order)})
            moved = [places.transpose(order) for places in moved]
        else:
            sizes = _factors(data, math.prod(shape))
            asked = list(sizes)
            if data.draw(st.booleans()):
                asked[data.draw(st.integers(0, len(sizes) - 1))] = -1
            wanted = ir.Value(name="shape", const_value=ir.tensor(np.array(asked, np.int64)))
            node = ir.node("Reshape", [value, wanted])
            moved = [places.reshape(sizes) for places in moved]
        value = node.outputs[0]
    source, path = trace_back(value)
    assert source is stored
    view = view_through(tuple(shape), path)
    assert view is not None
    assert view.sizes == moved[0].shape
    for axis, found in enumerate(view.axes):
        size = view.sizes[axis]
        along = np.arange(size).reshape([-1 if i == axis else 1 for i in range(len(view.sizes))])
        same = [
            place
            for place, places in enumerate(moved)
            if shape[place] == size and (places == np.broadcast_to(along, view.sizes)).all()
        ]
        if size > 1 and (found is not None or path_is_simple(path)):
            assert same == ([] if found is None else [found])


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
    assert view_through((4, 6), (node,)) is None
