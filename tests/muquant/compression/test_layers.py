"""A weight and all layers that have it."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from muquant import InputError, MuLawSpec
from muquant.compression.layers import override_formats, quantizable_weights, select_weights, weight_owners


class Tied(nn.Module):
    """An embedding whose table is the output layer's weight, and a layer of its own between them."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = nn.Embedding(6, 4), nn.Linear(4, 4), nn.Linear(4, 6)
        self.head.weight = self.embed.weight


class Double(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return 2 * weight


def test_a_shared_weight_is_one_with_all_its_owners() -> None:
    model = Tied()
    shared, own = quantizable_weights(model)
    assert [owner.layer for owner in shared.owners] == ["embed", "head"]
    assert (shared.name, shared.aliases, shared.layer) == ("embed.weight", ("head.weight",), "embed")
    assert (own.name, own.aliases, own.value) == ("mix.weight", (), model.mix.weight)
    assert [owner.name for owner in weight_owners(model)] == ["embed.weight", "mix.weight", "head.weight"]


def test_the_one_layer_of_two_paths_has_its_weight_at_both() -> None:
    layer = nn.Linear(3, 3)
    (weight,) = quantizable_weights(nn.Sequential(layer, layer))
    assert [owner.name for owner in weight.owners] == ["0.weight", "1.weight"]
    assert weight.own_bias is None


def test_under_a_parametrization_the_tensor_that_is_kept_tells_who_shares_it() -> None:
    """What comes out of one is a new tensor at every look, which would be nobody's."""
    model: Any = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3), nn.Linear(3, 3))
    model[1].weight = model[0].weight
    step = Double()
    for layer in model[:2]:
        parametrize.register_parametrization(layer, "weight", step)
    parametrize.register_parametrization(model[2], "weight", Double())
    shared, own = quantizable_weights(model)
    assert [owner.layer for owner in shared.owners] == ["0", "1"]
    torch.testing.assert_close(own.value, 2 * model[2].parametrizations.weight.original)


@pytest.mark.parametrize(
    ("change", "own"),
    [
        (lambda model: None, True),
        (lambda model: setattr(model[1], "bias", model[0].bias), False),
        (lambda model: setattr(model[1], "weight", model[0].weight), False),
        (lambda model: setattr(model[0], "bias", None), False),
    ],
    ids=["alone", "a bias of two layers", "a weight of two layers", "no bias"],
)
def test_a_bias_that_may_be_changed_is_one_layer_s_alone(change: Any, own: bool) -> None:
    model: Any = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    change(model)
    assert (quantizable_weights(model)[0].own_bias is not None) == own


@pytest.mark.parametrize(
    ("layers", "names"),
    [
        ("all", ["embed.weight", "mix.weight"]),
        ("head", ["embed.weight"]),
        ("last:1", ["embed.weight"]),  # the last layer is the head
        ("last:2", ["mix.weight", "embed.weight"]),
        ("mix", ["mix.weight"]),
    ],
)
def test_any_of_its_layers_picks_a_weight(layers: str, names: list[str]) -> None:
    assert [weight.name for weight in select_weights(Tied(), layers)] == names


@pytest.mark.parametrize("layers", ["embed", "head", "=embed.weight", "=head.weight", "last:1"])
def test_any_of_its_layers_gives_a_weight_its_own_format(layers: str) -> None:
    weights = quantizable_weights(Tied())
    assert override_formats(weights, MuLawSpec(), {layers: 5}) == {weights[0]: MuLawSpec(5)}


def test_an_override_that_picks_nothing_names_what_there_is() -> None:
    with pytest.raises(InputError, match=r"the weights are embed\.weight, mix\.weight, head\.weight"):
        override_formats(quantizable_weights(Tied()), MuLawSpec(), {"=x": 5})


def test_a_replaced_weight_is_still_shared() -> None:
    model = Tied()
    value = torch.ones(6, 4)
    quantizable_weights(model)[0].replace(value)
    assert model.head.weight is model.embed.weight
    torch.testing.assert_close(model.embed.weight.detach(), value)
    assert not model.embed.weight.requires_grad
