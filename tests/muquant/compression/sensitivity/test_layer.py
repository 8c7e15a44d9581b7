from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from muquant import InputError
from muquant.compression.layers import Owner, quantizable_weights
from muquant.compression.sensitivity import convolution_norms, input_shapes, layer_norms
from muquant.models import build_model


def owners(model: nn.Module) -> tuple[Owner, ...]:
    (weight,) = quantizable_weights(model)
    return weight.owners


def test_a_linear_layer_is_its_matrix() -> None:
    layer = nn.Linear(5, 4)
    matrix, operator = layer_norms(owners(layer), layer.weight, {})
    assert operator == matrix
    assert matrix.inf == pytest.approx(np.linalg.norm(layer.weight.detach().numpy(), np.inf))


def test_an_embedding_is_its_matrix_transposed() -> None:
    layer = nn.Embedding(7, 3)
    matrix, operator = layer_norms(owners(layer), layer.weight, {})
    assert operator == matrix.transposed() != matrix
    longest = layer(torch.arange(7)).detach().abs().sum(1).max()  # ||.||_1 of what a one-hot vector becomes
    assert operator.one == pytest.approx(float(longest))


def test_the_matrix_has_channels_as_rows_whatever_their_axis() -> None:
    layer = nn.ConvTranspose2d(3, 2, 3)
    matrix, _ = layer_norms(owners(layer), layer.weight, {})
    expected = layer.weight.detach().numpy().transpose(1, 0, 2, 3).reshape(2, -1)
    assert matrix.two == pytest.approx(np.linalg.norm(expected, 2))


class Twice(nn.Module):
    """One weight in three calls: of a layer at two sizes, and of another layer at another stride."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, stride=2)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.b(self.a(self.a(x)[..., :4, :4]))
        return out


def test_of_several_calls_the_largest_norms_count() -> None:
    model = Twice()
    shapes = input_shapes(model, torch.zeros(3, 2, 7, 5))
    assert shapes == {model.a: {(2, 7, 5), (2, 4, 4)}, model.b: {(2, 4, 4)}}
    _, operator = layer_norms(owners(model), model.a.weight, shapes)
    weight = model.a.weight
    each = [convolution_norms(layer, weight, shape) for layer, found in shapes.items() for shape in found]
    assert operator is not None
    assert operator.two == max(norms.two for norms in each)
    assert operator.one == max(norms.one for norms in each)
    assert operator.inf == max(norms.inf for norms in each)
    del shapes[model.b]
    assert layer_norms(owners(model), model.a.weight, shapes)[1] is None


def test_models_of_ours_know_the_shapes_of_their_layers() -> None:
    model: Any = build_model("cnn4-small", (1, 12, 8), 3).eval()
    channels = model.conv1.out_channels
    assert input_shapes(model) == {model.conv1: {(1, 12, 8)}, model.conv2: {(channels, 6, 4)}}


def test_shapes_of_other_models_come_from_an_example() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv1d(2, 3, 2)

        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return self.conv(input=x) + y  # type: ignore[no-any-return]

    model = Pair()
    assert input_shapes(model) == {}
    assert input_shapes(model, (torch.zeros(1, 2, 9), torch.zeros(1))) == {model.conv: {(2, 9)}}
    assert input_shapes(nn.Linear(2, 2), torch.zeros(9, 9)) == {}  # nothing to learn, so it is not run
    with pytest.raises(InputError, match=r"Pair does not run on inputs of shape \[\(1, 2, 9\)\]"):
        input_shapes(model, torch.zeros(1, 2, 9))
    assert not model.conv._forward_hooks
