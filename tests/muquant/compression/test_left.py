"""What stays float is listed, all of it, once, with its bytes and the reason."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize

import muquant as mq
from muquant import InputError
from muquant.compression.layers import select_weights


class Odd(nn.Module):
    """Weights of kinds that are known and of others, most of its bytes in those."""

    def __init__(self) -> None:
        super().__init__()
        self.bag, self.again = nn.EmbeddingBag(50, 4), nn.EmbeddingBag(50, 4)
        self.again.weight = self.bag.weight
        self.lstm = nn.LSTM(4, 4, bias=False)
        self.attention = nn.MultiheadAttention(4, 2, add_bias_kv=True, bias=False)
        self.norm, self.fc, self.head = nn.LayerNorm(4), nn.Linear(4, 4), nn.Linear(4, 4, bias=False)
        self.head.weight = self.fc.weight
        self.spectrum = nn.Parameter(torch.zeros(5, 4, dtype=torch.complex64))
        self.gain = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("table", torch.zeros(9, 4, dtype=torch.float64))
        self.register_buffer("scratch", torch.zeros(99, 4), persistent=False)
        self.register_buffer("places", torch.zeros(99, 4, dtype=torch.int64))


UNKNOWN = "use unknown: give an example or calibration samples, which show it"
REST = [
    ("spectrum", (5, 4), 160, "complex numbers"),
    ("table", (9, 4), 144, "a buffer"),
    ("attention.bias_k", (1, 1, 4), 16, UNKNOWN),
    ("attention.bias_v", (1, 1, 4), 16, UNKNOWN),
    ("norm.weight", (4,), 16, "one axis"),
    ("norm.bias", (4,), 16, "one axis"),
    ("fc.bias", (4,), 16, "one axis"),
    ("gain", (), 4, "a scalar"),
]
"""What of `Odd` has no form in few bits."""


COULD = [
    ("bag.weight", (50, 4), 800),
    ("lstm.weight_ih_l0", (16, 4), 256),
    ("lstm.weight_hh_l0", (16, 4), 256),
]


def rows(left: tuple[mq.LeftFloat, ...]) -> set[tuple[str, tuple[int, ...], int, str]]:
    assert [each.nbytes for each in left] == sorted((each.nbytes for each in left), reverse=True)
    found = [(each.name, each.shape, each.nbytes, each.reason) for each in left]
    assert len(found) == len(set(found))
    return set(found)


def test_all_that_stays_float_is_listed_once_with_its_bytes_and_the_reason(tmp_path: Path) -> None:
    compressed = mq.compress(Odd())
    assert rows(compressed.left_alone) == set(REST)
    compressed.save(tmp_path / "odd.mq")
    assert rows(mq.load(tmp_path / "odd.mq", Odd()).left_alone) == set(REST)
    assert rows(mq.compress(Odd().half()).left_alone) == set(REST)  # which it makes float32


def test_weights_that_could_be_in_few_bits_say_why_they_are_not(tmp_path: Path) -> None:
    could = [*COULD, ("attention.in_proj_weight", (12, 4), 192), ("attention.out_proj.weight", (4, 4), 64)]
    compressed = mq.compress(Odd(), layers="head")
    assert rows(compressed.left_alone) == {*REST, *((*each, "not picked") for each in could)}
    compressed.save(tmp_path / "odd.mq")
    loaded = mq.load(tmp_path / "odd.mq", Odd())
    assert rows(loaded.left_alone) == {*REST, *((*each, "float32 in the file") for each in could)}
    model = Odd()
    model.fc.weight.data *= 1e6
    found = rows(mq.compress(model, layers="auto").left_alone)
    assert found == {*REST, ("fc.weight", (4, 4), 64, "no format met ||dW||_2 <= 1")}


def test_of_a_prepared_model_fake_quantization_is_no_part() -> None:
    prepared: Any = mq.prepare_qat(Odd())
    assert rows(mq.left_float(prepared)) == set(REST)
    assert rows(mq.compress(prepared).left_alone) == set(REST)
    prepared = mq.prepare_qat(Odd(), layers="fc")
    parametrize.register_parametrization(prepared.attention.out_proj, "weight", nn.Identity())
    assert {name for name, *_ in COULD} | {"attention.in_proj_weight", "attention.out_proj.weight"} == {
        each.name for each in mq.left_float(prepared) if each.reason == "not picked"
    }


@pytest.mark.parametrize("layers", ["all", "last:1", "0"])
def test_before_anything_is_done_it_tells_what_a_choice_of_layers_leaves(layers: str) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Conv2d(8, 2, 3))
    found = mq.left_float(model, select_weights(model, layers))
    assert found == mq.compress(model, layers=layers).left_alone
    done = sum(layer.float_nbytes for layer in mq.compress(model, layers=layers).report)
    floats = [value for value in model.state_dict().values() if value.is_floating_point()]
    assert done + sum(each.nbytes for each in found) == 4 * sum(map(torch.Tensor.numel, floats))


def test_what_has_no_shape_yet_is_no_obstacle() -> None:
    model = nn.Sequential(nn.Linear(4, 4, bias=False), nn.LazyConv2d(4, 3))
    assert mq.left_float(model, select_weights(model, "0")) == ()


def test_constants_that_are_no_weights_stay_exact_and_say_why() -> None:
    model: Any = nn.Sequential(nn.Conv1d(16, 1, 1, bias=False), nn.Linear(8, 4, bias=False))
    model[0].weight.data = torch.arange(16.0).reshape(1, 16, 1)  # as a decoder of boxes sums up with
    compressed = mq.compress(model)
    assert rows(compressed.left_alone) == {
        ("0.weight", (1, 16, 1), 64, "a ramp: each number is as far from the next")
    }
    with pytest.raises(InputError, match=r"layers '0' picks no .* constants.* 0\.weight \(a ramp"):
        mq.compress(model, layers="0")
    assert rows(mq.left_float(mq.prepare_qat(model))) == rows(compressed.left_alone)
