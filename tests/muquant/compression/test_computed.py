"""Weights that hooks and parametrizations compute: frozen as they are computed, and trained through."""

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune, spectral_norm

import muquant as mq
from muquant.base.errors import InputError

X = torch.rand(4, 8, generator=torch.Generator().manual_seed(1))


def weight_norm(layer: nn.Module) -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch would have people use the parametrization
        return torch.nn.utils.weight_norm(layer)


class Scale(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return -0.25 * weight


class Skew(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight + 0.01 * weight.roll(1, 1)


def parametrized(layer: nn.Module) -> nn.Module:
    return parametrize.register_parametrization(layer, "weight", Skew())


def pruned(layer: nn.Module) -> nn.Module:
    prune.l1_unstructured(layer, "weight", 0.5)  # type: ignore[no-untyped-call]
    return layer


def pruned_twice(layer: nn.Module) -> nn.Module:
    prune.random_unstructured(layer, "weight", 0.3)  # type: ignore[no-untyped-call]
    return pruned(layer)


COMPUTED: dict[str, Callable[[Any], Any]] = {
    "weight_norm": weight_norm,
    "spectral_norm": spectral_norm,
    "prune": pruned,
    "pruned twice": pruned_twice,
    "parametrized weight_norm": parametrizations.weight_norm,
    "parametrized spectral_norm": parametrizations.spectral_norm,
    "orthogonal": parametrizations.orthogonal,
    "any": parametrized,
}
computed = pytest.mark.parametrize("compute", COMPUTED.values(), ids=COMPUTED.keys())


def net(compute: Callable[[Any], Any]) -> Any:
    torch.manual_seed(0)
    return nn.Sequential(compute(nn.Linear(8, 8)), nn.ReLU(), nn.Linear(8, 3))


def untouched(_: Any) -> None:
    pass


def run(model: Any) -> None:
    model(X).sum().backward()


def run_without_gradients(model: Any) -> None:
    with torch.no_grad():
        model.eval()(X)


def run_in_inference_mode(model: Any) -> None:
    with torch.inference_mode():
        model.eval()(X)


def change(model: Any) -> None:
    """The weight that a hook computed last is no longer what it would compute."""
    model.load_state_dict({name: value * 1.5 for name, value in model.state_dict().items()})


@pytest.mark.parametrize("use", [untouched, run, run_without_gradients, run_in_inference_mode, change])
@computed
def test_what_the_module_computes_with_is_compressed(
    compute: Callable[[Any], Any], use: Callable[[Any], None]
) -> None:
    model = net(compute)
    use(model)
    before = copy.deepcopy(model.state_dict())
    compressed = mq.compress(model, mq.MuLawSpec(8), observer="absmax")
    wanted = model.eval()(X)
    value = model[0].weight.detach()
    torch.testing.assert_close(compressed.tensors["0.weight"].dequantize(), value, rtol=0, atol=0.02)
    torch.testing.assert_close(compressed.module(X), wanted.detach(), rtol=0, atol=0.03)
    assert {name for name, _ in compressed.module.named_parameters()} == {
        name for name, _ in nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).named_parameters()
    }
    if use is untouched:
        for name, each in model.state_dict().items():
            assert torch.equal(each, before[name])
    assert [left.name for left in compressed.left_alone] == ["0.bias", "2.bias"]


@computed
def test_it_is_trained_with_few_levels_and_frozen_as_it_was_trained(compute: Callable[[Any], Any]) -> None:
    model = net(compute)
    trained = {name for name, _ in model.named_parameters()}
    model.load_state_dict({name: value * 1.5 for name, value in model.state_dict().items()})
    mq.prepare_qat(model)
    assert [left.name for left in mq.left_float(model)] == ["0.bias", "2.bias"]
    optimizer = torch.optim.SGD(model.parameters(), 0.05)
    for _ in range(2):
        optimizer.zero_grad()
        model(X).square().sum().backward()
        optimizer.step()
    if not any(name.startswith("0.parametrizations") for name in trained):  # what there was keeps its name
        assert trained - {"2.weight"} <= {name for name, _ in model.named_parameters()}
    scales: Any = [each for each in model.modules() if isinstance(each, mq.MuLawFakeQuantize)]
    assert all(each.log_scale.grad.abs().sum() > 0 for each in scales)
    model.eval()
    wanted = model(X).detach()
    assert all(len(torch.unique(row)) <= 8 for row in model[0].weight)
    compressed = mq.compress(model)
    assert list(compressed.tensors) == ["0.weight", "2.weight"]
    assert torch.equal(compressed.module(X), wanted)
    assert torch.equal(model(X), wanted)
    with pytest.raises(InputError, match=r"^0\.weight is prepared already"):
        mq.prepare_qat(model)


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group:4"])
@pytest.mark.parametrize(
    "register",
    [
        lambda layer: parametrize.register_parametrization(layer, "weight", Scale()),
        parametrizations.spectral_norm,
    ],
)
def test_what_only_scales_fake_quantization_costs_nothing(register: Any, granularity: str) -> None:
    model = mq.prepare_qat(net(lambda layer: layer), mq.MuLawSpec(granularity=granularity))
    register(model[0])  # type: ignore[index]
    model.eval()
    compressed = mq.compress(model)
    torch.testing.assert_close(compressed.module(X), model(X))
    assert [layer.rounding for layer in compressed.report] == ["nearest", "nearest"]


def test_what_leaves_the_levels_is_quantized_anew_and_said() -> None:
    model: Any = mq.prepare_qat(net(lambda layer: layer), mq.MuLawSpec(6))
    parametrized(model[0])
    value = model.eval()[0].weight.detach()
    compressed = mq.compress(model)
    assert [layer.rounding for layer in compressed.report] == ["requantized", "nearest"]
    error = compressed.tensors["0.weight"].dequantize() - value
    sqnr = compressed.report[0].sqnr
    assert sqnr == pytest.approx(float(10 * (value.square().sum() / error.square().sum()).log10()), rel=1e-4)
    assert float(sqnr or 0) > 20


@pytest.mark.parametrize("register", [parametrizations.weight_norm, parametrizations.orthogonal])
def test_what_torch_cannot_run_behind_another_is_refused_with_advice(register: Any) -> None:
    model: Any = mq.prepare_qat(net(lambda layer: layer))
    register(model[0])
    with pytest.raises(InputError, match="only as the first of a tensor; register it before prepare_qat"):
        model(X)
    with pytest.raises(InputError, match=r"^0\.weight: its param.*; register it before prepare_qat"):
        mq.compress(model)


def test_what_is_pruned_and_shared_stays_as_it_is() -> None:
    model: Any = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    pruned(model[0])
    wanted = model(X)
    compressed = mq.compress(model, mq.MuLawSpec(8), observer="absmax")
    torch.testing.assert_close(compressed.module(X), wanted, rtol=0, atol=0.03)


def test_one_computed_weight_of_two_layers_is_kept_once() -> None:
    model: Any = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = model[0].weight
    step = Scale()
    for layer in model:
        parametrize.register_parametrization(layer, "weight", step)
    compressed = mq.compress(model)
    assert compressed.aliases == {"1.weight": "0.weight"}


@computed
def test_a_file_is_loaded_into_a_model_with_hooks(compute: Callable[[Any], Any], tmp_path: Any) -> None:
    compressed = mq.compress(net(compute))
    compressed.save(tmp_path / "net.mq")
    loaded = mq.load(tmp_path / "net.mq", net(compute))
    assert torch.equal(loaded.module(X), compressed.module(X))


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_whether_gradients_are_on_makes_no_difference(mode: Any) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 3)]
    model, x = nn.Sequential(*layers).eval(), torch.rand(16, 1, 8, 8)
    wanted = mq.compress(model, calibration=x)
    plan = mq.plan_widths(model, max_bytes=300, calibration=x)
    with mode():
        found = mq.compress(model, calibration=x)
        assert mq.plan_widths(model, max_bytes=300, calibration=x) == plan
        prepared = mq.prepare_qat(model)
    assert found.report == wanted.report
    assert torch.equal(found.module(x), wanted.module(x))
    prepared(x).sum().backward()
    assert not any(value.is_inference() for value in prepared.state_dict().values())


def test_a_model_made_in_inference_mode_is_compressed() -> None:
    with torch.inference_mode():
        model = net(lambda layer: layer).eval()
        wanted = model(X)
    compressed = mq.compress(model, mq.MuLawSpec(8), calibration=X, observer="absmax")
    torch.testing.assert_close(compressed.module(X).detach(), wanted.clone(), rtol=0, atol=0.03)
