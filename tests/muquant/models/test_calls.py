"""Example inputs in every form, and inputs drawn after them."""

from collections import UserDict, namedtuple
from typing import Any

import numpy as np
import pytest
import torch

from muquant import InputError
from muquant.models.calls import Inputs, random_inputs, taken_inputs

Pair = namedtuple("Pair", ("key", "value"))
A, B = torch.arange(6.0).reshape(2, 3), torch.tensor([[1], [0]])


@pytest.mark.parametrize(
    ("example", "positional", "named"),
    [
        (A, (A,), {}),
        ((A, B), (A, B), {}),
        ([A, B], (A, B), {}),
        ({"b": B, "a": A}, (), {"b": B, "a": A}),
        (UserDict({"a": A}), (), {"a": A}),
    ],
    ids=["tensor", "tuple", "list", "dict", "mapping"],
)
def test_a_model_is_called_with_what_was_given(
    example: Any, positional: tuple[torch.Tensor, ...], named: dict[str, torch.Tensor]
) -> None:
    def call(*args: torch.Tensor, **kwargs: torch.Tensor) -> tuple[Any, Any]:
        return args, kwargs

    args, kwargs = Inputs.of(example).call(call)
    assert list(map(id, args)) == list(map(id, positional))
    assert [(name, id(value)) for name, value in kwargs.items()] == [(k, id(v)) for k, v in named.items()]
    (again_args, again_kwargs) = Inputs.of(Inputs.of(example).example).call(call)
    assert (list(map(id, again_args)), list(again_kwargs)) == (list(map(id, args)), list(kwargs))


@pytest.mark.parametrize(
    ("example", "names"),
    [
        (
            {"ids": B, "past": ((A, B), [A, {"k": B}])},
            ("ids", "past.0.0", "past.0.1", "past.1.0", "past.1.1.k"),
        ),
        ({"ids": B, "past": ()}, ("ids",)),
        ((B, [A, Pair(B, A)]), ()),
    ],
    ids=["by-name", "empty", "in-order"],
)
def test_arguments_may_have_parts(example: Any, names: tuple[str, ...]) -> None:
    inputs = Inputs.of(example)
    assert inputs.names == names
    for given in (inputs, Inputs.of(inputs.example)):
        args, kwargs = given.call(lambda *args, **kwargs: (args, kwargs))
        torch.testing.assert_close(kwargs or args, example, rtol=0, atol=0)
    doubled = inputs.map(lambda tensor: 2 * tensor).call(lambda *args, **kwargs: kwargs or args)
    torch.testing.assert_close(doubled, torch.utils._pytree.tree_map(lambda x: 2 * x, example))


@pytest.mark.parametrize(
    ("example", "found"),
    [
        (3, "int of int"),
        (np.array(["a"]), "ndarray of ndarray"),
        ((A, "1"), "tuple of Tensor, str"),
        ({"a": [1]}, "dict of int, str"),
        ({"a": (A, None)}, "dict of NoneType, Tensor, str"),
        ({0: A}, "dict of Tensor, int"),
        ("text", "str of str"),
    ],
    ids=str,
)
def test_what_is_no_example_is_refused(example: object, found: str) -> None:
    with pytest.raises(InputError, match=f"by argument name, found {found}; convert"):
        Inputs.of(example)


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.arange(6, dtype=np.uint8)[::-2],
        np.arange(6, dtype=">i4"),
        np.array([True, False]),
        np.arange(6, dtype=np.float16).reshape(2, 3).T,
        np.float32(0.5),
        np.array(7),
    ],
    ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_are_taken_as_they_are(array: Any) -> None:
    (found,) = Inputs.of({"x": array}).tensors
    assert found.numpy().dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found.numpy(), array)
    still = np.array(array)
    still.flags.writeable = False
    np.testing.assert_array_equal(Inputs.of((still, A)).tensors[0].numpy(), array)


def test_a_number_among_others_is_one_for_all() -> None:
    inputs = Inputs.of({"x": A, "rate": 16000, "share": 0.5, "on": True})
    assert [tensor.dtype for tensor in inputs.tensors] == [
        torch.float32,
        torch.int64,
        torch.float32,
        torch.bool,
    ]
    assert (inputs.count, inputs.axes) == (2, (0, None, None, None))
    assert [tensor.tolist() for tensor in inputs.rows(1, 2).tensors] == [[[3, 4, 5]], 16000, 0.5, True]


@pytest.mark.parametrize(
    ("shapes", "count", "axes"),
    [
        ([(64, 5), (64,)], 64, (0, 0)),
        ([(64, 5), (2, 64, 3), ()], 64, (0, 1, None)),
        ([(2, 64, 3), (64, 5)], 64, (1, 0)),
        ([(64, 5), (64, 64, 3)], 64, (0, 0)),
        ([(64, 5), (1,), (1, 7)], 64, (0, None, None)),
        ([(1, 576), (2, 1, 128), ()], 1, (0, 1, None)),
        ([(9, 3), (8, 3)], None, ()),
        ([(10, 5), (5,)], None, ()),
        ([(64, 5), (3,)], None, ()),
        ([(3, 4, 5), (4, 3, 5)], None, ()),
        ([()], None, ()),
        ([(0, 5)], None, ()),
        ([], None, ()),
    ],
    ids=str,
)
def test_where_examples_lie(
    shapes: list[tuple[int, ...]], count: int | None, axes: tuple[int | None, ...]
) -> None:
    inputs = Inputs(tuple(torch.rand(shape) for shape in shapes))
    if count is None:
        with pytest.raises(InputError, match="give as many examples in each"):
            _ = inputs.count
        return
    assert (inputs.count, inputs.axes) == (count, axes)
    part = inputs.take(torch.arange(count) % 4 == 0)
    assert (part.count, part.axes) == (-(-count // 4), axes)
    for tensor, old, axis in zip(part.tensors, inputs.tensors, axes, strict=True):
        expected = old if axis is None else old.movedim(axis, 0)[::4].movedim(0, axis)
        assert torch.equal(tensor, expected)
    assert inputs.rows(0, 1).rows(0, 1).count == 1
    whole = [batch.count for batch in inputs.batches(10)]
    assert sum(whole) == count


def test_random_inputs_keep_what_means_something() -> None:
    drawn: Any = random_inputs({"image": 10 * A.double(), "ids": B, "flat": torch.zeros(2, 4)}, 5)
    assert drawn["ids"].tolist() == [[1], [0], [1], [0], [1]]
    assert (drawn["image"].shape, drawn["image"].dtype) == ((5, 3), torch.float64)
    assert drawn["image"].min() >= 0
    assert drawn["image"].max() <= 50
    assert drawn["image"].unique().numel() == 15
    assert 0 <= drawn["flat"].min() < drawn["flat"].max() < 1
    again: Any = random_inputs({"image": 10 * A.double(), "ids": B, "flat": torch.zeros(2, 4)}, 5)
    assert torch.equal(drawn["image"], again["image"])


def test_random_inputs_lie_where_those_of_the_example_do() -> None:
    drawn: Any = random_inputs({"x": torch.rand(3, 4), "state": torch.rand(2, 3, 5), "rate": 16000}, 7)
    assert [drawn[name].shape for name in ("x", "state", "rate")] == [(7, 4), (2, 7, 5), ()]
    assert int(drawn["rate"]) == 16000


def test_an_example_without_numbers_to_draw_stays_as_it_is() -> None:
    example = {"ids": B, "mask": B.bool()}
    assert random_inputs(example, 100) is example


def test_inputs_of_another_precision_are_float32_where_a_model_takes_no_others() -> None:
    model, ids = torch.nn.Linear(3, 2), torch.tensor([[1], [2]])
    (taken,) = taken_inputs(model, Inputs.of(A.double())).tensors
    assert taken.dtype == torch.float32
    assert torch.equal(taken, A)
    (kept,) = taken_inputs(torch.nn.Identity(), Inputs.of(A.double())).tensors
    assert kept.dtype == torch.float64
    (kept,) = taken_inputs(model, Inputs.of(B.double())).tensors  # of a shape that it does not take
    assert kept.dtype == torch.float64
    table = torch.nn.EmbeddingBag(5, 2, mode="sum")
    inputs = Inputs.of({"input": ids, "per_sample_weights": torch.ones(2, 1).half()})
    assert [each.dtype for each in taken_inputs(table, inputs).tensors] == [torch.int64, torch.float32]
