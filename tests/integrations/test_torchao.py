"""`quantize_` in place, ours and torchao's own."""

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

import muquant
from muquant.base.errors import InputError
from muquant_integrations import MuLawConfig, quantize_, register_with_torchao


def levels(weight: Tensor) -> int:
    """The largest number of different values in a row."""
    return max(len(np.unique(row)) for row in weight.detach().float().numpy().reshape(len(weight), -1))


def test_weights_are_replaced_in_place_by_what_the_codes_decode_to(
    network: nn.Module, images: Tensor
) -> None:
    first, last = (network.get_parameter(name) for name in ("1.weight", "3.weight"))
    before = first.detach().clone()
    compressed = quantize_(network, MuLawConfig(bits=3, flat=True))
    assert network.get_parameter("1.weight") is first  # the same parameters: optimizers still know them
    assert levels(first) <= 8
    assert levels(last) <= 8
    assert not torch.equal(first, before)
    for name, tensor in compressed.tensors.items():
        assert torch.equal(network.get_parameter(name), tensor.dequantize())
    torch.testing.assert_close(network(images), compressed.module(images), rtol=0, atol=0)


def test_a_filter_picks_modules_by_kind_and_path(network: nn.Module) -> None:
    seen: list[str] = []

    def last(module: nn.Module, path: str) -> bool:
        seen.append(path)
        return isinstance(module, nn.Linear) and path == "3"

    before = network.get_parameter("1.weight").detach().clone()
    compressed = quantize_(network, MuLawConfig(bits=2, granularity="tensor"), last)
    assert seen == ["1", "3"]
    assert list(compressed.tensors) == ["3.weight"]
    assert torch.equal(network.get_parameter("1.weight"), before)
    assert len(np.unique(network.get_parameter("3.weight").detach().numpy())) <= 4


def test_samples_choose_codes_and_biases(network: nn.Module, images: Tensor) -> None:
    wanted = muquant.compress(network, calibration=images)
    quantize_(network, MuLawConfig(calibration=images))
    for name, value in wanted.module.state_dict().items():
        assert torch.equal(network.state_dict()[name], value)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_a_model_keeps_its_precision(network: nn.Module, dtype: torch.dtype) -> None:
    network.to(dtype)
    compressed = quantize_(network, MuLawConfig(flat=True))
    for name, tensor in compressed.tensors.items():
        assert network.get_parameter(name).dtype == dtype
        assert torch.equal(network.get_parameter(name), tensor.dequantize().to(dtype))


def test_wrapped_shared_and_inference_weights(network: nn.Module) -> None:
    wrapped = nn.DataParallel(network)
    compressed = quantize_(wrapped, MuLawConfig(flat=True))
    assert torch.equal(network.get_parameter("1.weight"), compressed.tensors["1.weight"].dequantize())

    shared = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    shared[1].weight = shared[0].weight
    quantize_(shared, MuLawConfig(), lambda _, path: path == "1")  # any of its layers picks a shared weight
    assert shared[1].weight is shared[0].weight
    assert levels(shared.get_parameter("0.weight")) <= 8

    with torch.inference_mode():
        frozen = nn.Linear(8, 8)
    quantize_(frozen, MuLawConfig())
    assert levels(frozen.weight) <= 8


@pytest.mark.parametrize(
    ("use", "message"),
    [
        (
            lambda model: quantize_(model, MuLawConfig(), lambda *_: False),
            "no layer with weights; .* are 1, 3$",
        ),
        (
            lambda model: quantize_(weight_norm(model[1]), MuLawConfig()),
            "parametrizations or hooks .*compress",
        ),
        (
            lambda model: quantize_(muquant.prepare_qat(model), MuLawConfig()),
            "prepared for quantization-aware",
        ),
        (lambda _: MuLawConfig(bits=1), "bits is 1; expected"),
        (lambda _: MuLawConfig(granularity="rows"), "granularity 'rows' is unknown"),
        (lambda model: quantize_(model, MuLawConfig(rounding="best")), "rounding 'best' is unknown"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    network: nn.Module, use: Callable[[Any], object], message: str
) -> None:
    with pytest.raises(InputError, match=message) as caught:
        use(network)
    assert "\n" not in str(caught.value)


def test_a_refused_model_is_as_it_was(network: nn.Module) -> None:
    weight_norm(network[1])  # type: ignore[index]
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(InputError, match="parametrizations"):
        quantize_(network, MuLawConfig())
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


def test_torchao_itself_takes_the_configuration(network: nn.Module, images: Tensor) -> None:
    torchao = pytest.importorskip("torchao", reason="needs torchao: make test-integrations")
    register_with_torchao()
    convolution = nn.Conv2d(1, 4, 3)
    model = nn.Sequential(convolution, nn.Flatten(), nn.Linear(144, 32), nn.ReLU(), nn.Linear(32, 4))
    kept = convolution.weight.detach().clone()
    torchao.quantization.quantize_(model, MuLawConfig(bits=3))  # its own filter: linear layers
    assert torch.equal(convolution.weight, kept)
    assert levels(model.get_parameter("2.weight")) <= 8
    assert model(images).shape == (16, 4)

    found = muquant.compress(model, flat=True, layers=["2.weight", "4.weight"], check=False)
    for name, tensor in found.tensors.items():  # so the model can still become a file
        torch.testing.assert_close(tensor.dequantize(), model.get_parameter(name), rtol=0, atol=1e-6)

    torchao.quantization.quantize_(
        model, MuLawConfig(bits=2), filter_fn=lambda module, _: isinstance(module, nn.Conv2d)
    )
    assert levels(convolution.weight) <= 4
    with pytest.raises(InputError, match="samples of a whole model"):
        torchao.quantization.quantize_(model, MuLawConfig(calibration=images))
