"""What is asked of axes, in all forms; and what is wrong with it, in one line."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim

from muquant import InputError
from muquant.models.calls import Example, Inputs
from muquant_onnx.from_torch.asked import Wanted, labels, read_asked


class Decoder(nn.Module):
    def forward(self, ids: Tensor, past: tuple[tuple[Tensor, Tensor], ...], *more: Tensor) -> Tensor:
        return ids


IDS, KEY = torch.zeros(2, 3), torch.zeros(2, 4, 5)
BY_NAME: Example = {"ids": IDS, "past": ((KEY, KEY),)}
IN_ORDER: Example = (IDS, ((KEY, KEY),), torch.zeros(2, 9), torch.zeros(2))
BATCH = Wanted("batch")
PARTS = [(index, axis) for index in (1, 2) for axis in range(3)]


@pytest.mark.parametrize(
    ("shapes", "asked"),
    [
        (None, {}),
        ({}, {}),
        ({"ids": {0: "batch"}}, {(0, 0): BATCH, (0, 1): None}),
        ({"ids": ("batch", Dim.AUTO)}, {(0, 0): BATCH, (0, 1): Wanted()}),
        ({"ids": [Dim.STATIC, Dim.DYNAMIC(min=2, max=8)]}, {(0, 0): None, (0, 1): Wanted("", 2, 8)}),
        ({"ids": {1: Dim("long", min=2, max=99)}}, {(0, 0): None, (0, 1): Wanted("long", 2, 99)}),
        ({"ids": {1: 2 * Dim("half")}}, {(0, 0): None, (0, 1): Wanted()}),
        ({"ids": {1: 3}}, {(0, 0): None, (0, 1): None}),
        ({"ids": None}, {(0, 0): None, (0, 1): None}),
        ([["batch"], None], {**dict.fromkeys([(0, 1), *PARTS], None), (0, 0): BATCH}),
        (
            {"past": {0: "batch", 2: "width"}},
            {
                (index, axis): wanted
                for index in (1, 2)
                for axis, wanted in enumerate((BATCH, None, Wanted("width")))
            },
        ),
        (
            {"past": [({0: "batch"}, None)]},
            {**dict.fromkeys(PARTS, None), (1, 0): BATCH},
        ),
        ({"past.0.1": ["batch"]}, {(2, 0): BATCH, (2, 1): None, (2, 2): None}),
    ],
)
def test_all_forms(shapes: Any, asked: dict[Any, Any]) -> None:
    assert read_asked(shapes, Decoder(), Inputs.of(BY_NAME)) == asked


def test_inputs_in_order_have_the_names_of_arguments() -> None:
    inputs = Inputs.of(IN_ORDER)
    assert labels(Decoder(), inputs) == ("ids", "past.0.0", "past.0.1", "more_0", "more_1")
    asked = read_asked({"more_1": ["batch"], "ids": ["batch"]}, Decoder(), inputs)
    assert asked == {(4, 0): BATCH, (0, 0): BATCH, (0, 1): None}


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"mask": {0: "batch"}}, "there is no input 'mask'; expected one of ids, past.0.0, past.0.1"),
        ({"past": [None, {0: "batch"}]}, r"there is no input 'past.1'; expected one of ids"),
        ({0: {0: "batch"}}, "there is no input '0'"),
        ([None], "expected those of 2 inputs, ids, past, found those of 1; give them by name"),
        ("ids", "expected those of each input, .* found str"),
        (
            {"ids": ["batch", "sequence", "width"]},
            r"of ids: it has 2 axes, of shape \(2, 3\), found .* axis 2",
        ),
        ({"past": {-1: "width"}}, r"of past.0.0: it has 3 axes, .* found one more for axis -1; number them"),
        ({"ids": {0: 1.5}}, r"of ids: expected {axis: name} or a name for each axis, found {0: 1.5}"),
        ({"ids": "batch"}, "of ids: expected {axis: name} or a name for each axis, found 'batch'"),
        ({"past": "batch"}, "of past: expected"),
        ({"ids": {0: "a size"}}, "axis 0 of ids: expected a name of letters, digits and _ .* found 'a size'"),
        ({"ids": {0: ""}}, "axis 0 of ids: expected a name of letters, .* found ''"),
        ({"ids": {1: 4}}, "axis 1 of ids is 3 in the example, found 4 as its fixed size; give 3"),
        ({"ids": ["n", "n"]}, "n is 2 in ids and 3 in ids; expected one size, give the axes two names"),
        ({"ids": ["n"], "past": {1: "n"}}, "n is 2 in ids and 4 in past.0.0; expected one size"),
    ],
)
def test_what_cannot_be_asked_is_one_line(shapes: Any, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        read_asked(shapes, Decoder(), Inputs.of(BY_NAME))
    assert "\n" not in str(caught.value)
