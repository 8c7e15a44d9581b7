from dataclasses import asdict
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import muquant as mq
from muquant import InputError
from muquant.compression.amplification import Amplification, measure_amplification


def norm(x: Tensor) -> float:
    return float(np.linalg.norm(x.detach().double().numpy()))


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(7, 2, 6, 6, generator=generator)
    return x, x + 0.1 * torch.randn(x.shape, generator=generator)


class Net(nn.Module):
    """Its layers stand in another order than they are called in; activations work in place."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc = nn.Linear(4 * 9, 3)
        self.conv = nn.Conv2d(2, 4, 3, stride=2, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.conv(x).relu_().flatten(1))
        return out


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_errors_are_those_of_the_two_networks_run_by_hand(
    pair: tuple[Tensor, Tensor], batch_size: int
) -> None:
    x, noisy = pair
    model = Net()
    compressed = mq.compress(model, overrides={"conv": 2})
    small: Any = compressed.module
    found = measure_amplification(model, compressed, x, noisy, batch_size=batch_size)
    assert (found.count, found.left_out) == (7, ())
    conv, fc = found.layers
    assert (conv.name, conv.bits, fc.name, fc.bits) == ("conv", 2, "fc", 3)

    def through(net: Any, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        first = net.conv(x)
        inner = first.relu().flatten(1)
        return first, inner, net.fc(inner)

    (y1, h, y2), (p1, _, p2), (q1, g, q2), (b1, k, b2) = (
        through(net, images) for net in (model, small) for images in pair
    )
    for layer, y, perturbed, quantized, both in ((conv, y1, p1, q1, b1), (fc, y2, p2, q2, b2)):
        assert layer.perturbed == pytest.approx(norm(perturbed - y) / norm(y), rel=1e-5)
        assert layer.quantized.total == pytest.approx(norm(quantized - y) / norm(y), rel=1e-5)
        assert layer.both.total == pytest.approx(norm(both - y) / norm(y), rel=1e-5)

    delta = small.fc.weight - model.fc.weight
    signal = norm(y2)
    for split, inner in ((fc.quantized, g), (fc.both, k)):
        assert split.carried == pytest.approx(norm((inner - h) @ model.fc.weight.T) / signal, rel=1e-5)
        assert split.quantization == pytest.approx(norm(h @ delta.T) / signal, rel=1e-5)
        assert split.joint == pytest.approx(norm((inner - h) @ delta.T) / signal, rel=1e-5)
    expected = (h @ delta.T).norm(dim=1) / h.norm(dim=1)
    assert fc.gain == pytest.approx(float(expected.detach().max()), rel=1e-5)
    assert (conv.quantized.carried, conv.quantized.joint) == (0, 0)  # nothing has come in yet
    assert conv.quantized.total == pytest.approx(conv.quantized.quantization, rel=1e-5)

    weight, dw, dx = model.conv.weight, small.conv.weight - model.conv.weight, noisy - x
    signal = norm(y1)
    by_hand = [
        norm(functional.conv2d(given, kernel, stride=2, padding=1)) / signal
        for given, kernel in ((dx, weight), (x, dw), (dx, dw))
    ]
    assert [conv.both.carried, conv.both.quantization, conv.both.joint] == pytest.approx(by_hand, rel=1e-5)


def test_no_input_is_amplified_beyond_the_norm(pair: tuple[Tensor, Tensor]) -> None:
    x, noisy = pair
    model = Net()
    compressed = mq.compress(model, example=x)
    bound = {entry.name: entry.delta_norms.two for entry in compressed.report}
    for layer in measure_amplification(model, compressed, x, noisy).layers:
        assert 0 < layer.gain <= 1.01 * bound[f"{layer.name}.weight"]


def test_layers_left_float_only_carry_errors_on(pair: tuple[Tensor, Tensor]) -> None:
    x, noisy = pair
    model = Net()
    conv, fc = measure_amplification(model, mq.compress(model, layers="fc"), x, noisy).layers
    assert conv.bits is None
    assert (conv.gain, conv.quantized.total, conv.both.joint) == (0, 0, 0)
    assert conv.both.total == conv.perturbed
    assert fc.both.quantization > 0


def test_clean_inputs_for_perturbed_ones_leave_the_quantization_alone(pair: tuple[Tensor, Tensor]) -> None:
    model = Net()
    for layer in measure_amplification(model, mq.compress(model), pair[0], pair[0]).layers:
        assert layer.perturbed == 0
        assert layer.both == layer.quantized


def test_embeddings_are_linear_maps_of_one_hot_vectors() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 5), nn.Flatten(), nn.Linear(15, 2))
    compressed = mq.compress(model)
    tokens, other = torch.tensor([[0, 1, 2], [3, 3, 3]]), torch.tensor([[0, 5, 2], [3, 3, 8]])
    embedding, _ = measure_amplification(model, compressed, tokens, other).layers
    weight: Any = model[0].weight
    delta: Any = compressed.module.state_dict()["0.weight"] - weight
    signal = norm(weight[tokens])
    assert embedding.both.carried == pytest.approx(norm(weight[other] - weight[tokens]) / signal, rel=1e-5)
    assert embedding.both.joint == pytest.approx(norm(delta[other] - delta[tokens]) / signal, rel=1e-5)
    rows = (delta[tokens].flatten(1).norm(dim=1) / 3**0.5).tolist()  # a one-hot vector for each of 3 tokens
    assert embedding.gain == pytest.approx(max(rows), rel=1e-5)


class Repeated(nn.Module):
    """Calls one layer twice, and one only for bright inputs."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.fc, self.bright, self.unused = (nn.Linear(4, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.fc(self.fc(x))
        return self.bright(out) if x.mean() > 0.5 else out


def test_several_calls_of_a_layer_count_together() -> None:
    model = Repeated()
    compressed = mq.compress(model, layers="fc")
    x = torch.linspace(0, 0.4, 8).reshape(2, 4)
    found = measure_amplification(model, compressed, x, x + 0.01)
    assert [layer.name for layer in found.layers] == ["fc"]
    assert found.left_out == ("bright", "unused")
    small: Any = compressed.module
    first, second = model.fc(x), model.fc(model.fc(x))
    errors = torch.cat([small.fc(x) - first, small.fc(small.fc(x)) - second])
    expected = norm(errors) / norm(torch.cat([first, second]))
    assert found.layers[0].quantized.total == pytest.approx(expected, rel=1e-5)


def test_attention_is_left_out_and_said_so() -> None:
    torch.manual_seed(0)
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    x = torch.randn(2, 3, 8)
    found = measure_amplification(model, mq.compress(model), x, x + 0.01)
    assert [layer.name for layer in found.layers] == ["linear1", "linear2"]
    assert found.left_out == ("self_attn.out_proj",)
    assert all(layer.quantized.total > 0 for layer in found.layers)


def test_what_was_prepared_for_training_is_compared_with_its_float_weights(
    pair: tuple[Tensor, Tensor],
) -> None:
    prepared: Any = mq.prepare_qat(Net())
    compressed = mq.compress(prepared)
    expected = measure_amplification(Net(), compressed, *pair)
    assert measure_amplification(prepared, compressed, *pair) == expected
    assert hasattr(prepared.fc, "parametrizations")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda model, x: (model, x, x[:3]), r"\(7, 2, 6, 6\), perturbed ones of shape \(3, 2, 6, 6\)"),
        (lambda model, x: (model, x[:0], x[:0]), "at least one"),
        (lambda model, x: (model, x[:, :1], x[:, :1]), "Net does not run on inputs of shape"),
        (lambda model, x: (nn.Linear(2, 2), x, x), "weight is not the same"),
    ],
)
def test_what_cannot_be_measured_is_named(change: Any, message: str, pair: tuple[Tensor, Tensor]) -> None:
    model = Net()
    given, x, noisy = change(model, pair[0])
    with pytest.raises(InputError, match=message):
        measure_amplification(given, mq.compress(model), x, noisy)


def test_another_run_and_another_way_through_the_network_are_refused(pair: tuple[Tensor, Tensor]) -> None:
    model, other = Net(), Net()
    other.fc.bias.data += 1
    with pytest.raises(InputError, match=r"fc\.bias is not the same"):
        measure_amplification(other, mq.compress(model), *pair)
    bright = Repeated()
    dim = torch.full((2, 4), 0.4)
    with pytest.raises(InputError, match=r"bright is called where .* calls nothing"):
        measure_amplification(bright, mq.compress(bright), dim, dim + 0.3)
    with pytest.raises(InputError, match=r"nothing is called where .* calls bright"):
        measure_amplification(bright, mq.compress(bright), dim + 0.3, dim)


def test_the_outcome_is_json(pair: tuple[Tensor, Tensor]) -> None:
    found = measure_amplification(Net(), mq.compress(Net()), *pair)
    assert isinstance(found, Amplification)
    document = asdict(found)
    assert set(document["layers"][0]["both"]) == {"total", "carried", "quantization", "joint"}
