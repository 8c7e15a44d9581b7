"""Example inputs in every form, and inputs drawn after them."""

from collections import UserDict, namedtuple
from typing import Any

import numpy as np
import pytest
import torch

from muquant import InputError
from muquant.models.calls import Inputs, random_inputs

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
        (np.zeros(3), "ndarray of ndarray"),
        ((A, 1), "tuple of Tensor, int"),
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


def test_an_example_without_numbers_to_draw_stays_as_it_is() -> None:
    example = {"ids": B, "mask": B.bool()}
    assert random_inputs(example, 100) is example
