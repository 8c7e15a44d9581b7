import copy
from collections.abc import Callable
from dataclasses import astuple
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import fusion, parametrizations, parametrize

import muquant as mq
from muquant import InputError, MuLawSpec
from muquant.compression.layers import quantizable_weights, select_weights
from muquant.compression.sensitivity import convolution_norms


def mlp() -> Any:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 9), nn.ReLU(), nn.Linear(9, 5), nn.BatchNorm1d(5), nn.Linear(5, 4))


@pytest.mark.parametrize(
    ("layers", "names"),
    [("all", "024"), ("last:1", "4"), ("last:2", "24"), ("last:99", "024"), ("^[02]$", "02"), ("4", "4")],
)
def test_selections(layers: str, names: str) -> None:
    assert [weight.layer for weight in select_weights(mlp(), layers)] == list(names)
    assert list(mq.compress(mlp(), layers=layers).tensors) == [f"{name}.weight" for name in names]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ("fc9", "'fc9' matches no layer; the layers are 0, 2, 4"),
        ("last:0", "count from 1"),
        ("last:x", "count from 1"),
        ("(", "not a regular expression"),
    ],
)
def test_selections_that_pick_nothing(layers: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mq.compress(mlp(), layers=layers)


def test_a_model_without_weights_is_refused() -> None:
    with pytest.raises(InputError, match="ReLU has no layer"):
        mq.compress(nn.ReLU())


@pytest.mark.parametrize(
    "spec", [MuLawSpec(), MuLawSpec(4, 255.0, "mapped", "tensor"), mq.SOURCE_SPEC], ids=str
)
def test_the_report_is_what_numpy_finds(spec: MuLawSpec) -> None:
    model = mlp()
    before = copy.deepcopy(model.state_dict())
    calls: list[tuple[str, int, int]] = []
    compressed = mq.compress(model, spec, flat=True, on_layer=lambda *call: calls.append(call))
    assert calls == [("0.weight", 0, 3), ("2.weight", 1, 3), ("4.weight", 2, 3)]
    assert not compressed.module.training
    for name, value in model.state_dict().items():  # the model itself is as it was
        assert torch.equal(value, before[name])
    for entry in compressed.report:
        weight = before[entry.name].double().numpy()
        decoded = compressed.module.state_dict()[entry.name]
        assert torch.equal(decoded, compressed.tensors[entry.name].dequantize())
        delta = weight - decoded.double().numpy()
        assert entry.sqnr == pytest.approx(10 * np.log10((weight**2).sum() / (delta**2).sum()))
        for found, p in zip(astuple(entry.matrix_norms), (1, 2, np.inf), strict=True):
            assert found == pytest.approx(np.linalg.norm(delta, p), rel=1e-5)
        assert entry.delta_norms == entry.operator_norms == entry.matrix_norms
        assert (entry.shape, entry.bits, entry.domain) == (weight.shape, spec.bits, spec.domain)
        assert entry.float_nbytes == 4 * weight.size
        steps = 1 if spec.granularity == "tensor" else weight.shape[0]
        assert entry.nbytes == -(-weight.size // 8) * spec.bits + 4 * steps
    for name in ("0.bias", "3.running_mean", "3.weight"):
        assert torch.equal(compressed.module.state_dict()[name], before[name])


def widths(compressed: mq.CompressedModel) -> dict[str, int]:
    return {name.removesuffix(".weight"): tensor.spec.bits for name, tensor in compressed.tensors.items()}


@pytest.mark.parametrize(
    ("overrides", "expected"),
    [
        ({}, (3, 3, 3)),
        ({"0": 8}, (8, 3, 3)),
        ({"[24]": 4}, (3, 4, 4)),
        ({"last:1": 5}, (3, 3, 5)),
        ({"all": 4, "2": 2}, (4, 2, 4)),
        ({"2": 2, "all": 4}, (4, 4, 4)),  # the last one counts
    ],
    ids=str,
)
def test_overrides_give_layers_a_width_of_their_own(
    overrides: dict[str, int], expected: tuple[int, ...]
) -> None:
    compressed = mq.compress(mlp(), overrides=overrides)
    assert widths(compressed) == dict(zip("024", expected, strict=True))
    for entry in compressed.report:  # each is what it would be alone
        alone = mq.compress(mlp(), MuLawSpec(entry.bits), layers=f"^{entry.name[0]}$")
        assert alone.report == (entry,)
        assert torch.equal(alone.tensors[entry.name].codes, compressed.tensors[entry.name].codes)


def test_an_override_may_be_another_format() -> None:
    mapped = MuLawSpec(4, 5.0, "mapped", "tensor")
    compressed = mq.compress(mlp(), overrides={"4": mapped})
    assert compressed.tensors["4.weight"].spec == mapped
    assert [entry.domain for entry in compressed.report] == ["decoded", "decoded", "mapped"]


@pytest.mark.parametrize(
    ("overrides", "layers", "message"),
    [
        ({"fc": 4}, "all", "override 'fc' matches no layer; the layers are 0, 2, 4"),
        ({"0": 4}, "last:2", "override '0' matches no layer; the layers are 2, 4"),
        ({"(": 4}, "all", "override '\\(' is not a regular expression"),
        ({"0": 9}, "all", "override '0': bits is 9; expected a whole number from 2 to 8"),
    ],
    ids=str,
)
def test_overrides_that_cannot_be_used(overrides: dict[str, int], layers: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        mq.compress(mlp(), layers=layers, overrides=overrides)


def scaled_mlp() -> Any:
    model = mlp()
    for layer, scale in ((0, 1.0), (2, 12.0), (4, 40.0)):
        model[layer].weight.data *= scale
    return model


def delta_norm(model: nn.Module, layer: str, spec: MuLawSpec) -> float:
    """||dW||_2 of one layer, by numpy."""
    decoded = mq.compress(model, spec, layers=f"^{layer}$").module.state_dict()[f"{layer}.weight"]
    return float(np.linalg.norm((decoded - model.state_dict()[f"{layer}.weight"]).double().numpy(), 2))


def test_auto_takes_the_smallest_width_at_which_the_norm_is_at_most_one() -> None:
    model = scaled_mlp()
    expected = {
        layer: next(bits for bits in range(3, 9) if delta_norm(model, layer, MuLawSpec(bits)) <= 1)
        for layer in "024"
    }
    assert len(set(expected.values())) == 3  # the case tells widths apart
    compressed = mq.compress(model, layers="auto")
    assert widths(compressed) == expected
    for choice, entry in zip(compressed.choices, compressed.report, strict=True):
        assert [trial.bits for trial in choice.trials] == list(range(3, entry.bits + 1))
        assert choice.taken == choice.trials[-1]
        assert choice.taken is not None
        assert choice.taken.delta_norm == entry.delta_norms.two <= 1
        assert all(trial.delta_norm > 1 for trial in choice.trials[:-1])
    assert widths(mq.compress(model, MuLawSpec(6), layers="auto"))["0"] == 6  # never narrower than asked


def test_auto_leaves_float_what_no_width_keeps_and_does_not_try_overrides() -> None:
    model = scaled_mlp()
    model[4].weight.data *= 1e4
    compressed = mq.compress(model, layers="auto", overrides={"2": 2})
    assert widths(compressed)["2"] == 2
    assert "4.weight" not in compressed.tensors
    assert torch.equal(compressed.module.state_dict()["4.weight"], model.state_dict()["4.weight"])
    assert [choice.name for choice in compressed.choices] == ["0.weight", "4.weight"]
    assert compressed.choices[1].taken is None
    assert [trial.bits for trial in compressed.choices[1].trials] == list(range(3, 9))
    for parameter in model.parameters():
        parameter.data *= 1e6
    with pytest.raises(InputError, match="of no layer is"):
        mq.compress(model, layers="auto")


def test_auto_maps_only_what_mapping_does_not_change_too_much() -> None:
    model, asked = scaled_mlp(), MuLawSpec(3, 16.0, "mapped")
    norms = [delta_norm(model, layer, asked) for layer in "024"]
    assert norms[0] <= 1 < min(norms[1:])
    compressed = mq.compress(model, asked, layers="auto")
    assert compressed.tensors["0.weight"].spec == asked
    plain = mq.compress(model, layers="auto")
    for name in ("2.weight", "4.weight"):
        assert compressed.tensors[name].spec == plain.tensors[name].spec
        assert torch.equal(compressed.tensors[name].codes, plain.tensors[name].codes)
    assert [trial.domain for trial in compressed.choices[1].trials][:2] == ["mapped", "decoded"]


def test_the_norms_of_a_convolution_are_those_of_its_layer_where_its_input_is_known() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Flatten(), nn.Linear(75, 4))
    (conv, linear) = mq.compress(model).report
    assert conv.operator_norms is None
    assert conv.delta_norms == conv.matrix_norms
    assert linear.operator_norms == linear.matrix_norms
    compressed = mq.compress(model, example=torch.zeros(1, 2, 5, 5))
    delta = compressed.module.state_dict()["0.weight"] - model.state_dict()["0.weight"]
    expected = convolution_norms(model[0], delta, (2, 5, 5))
    assert compressed.report[0].operator_norms == compressed.report[0].delta_norms == expected
    assert compressed.report[0].matrix_norms == conv.matrix_norms
    with pytest.raises(InputError, match=r"Sequential does not run on inputs of shape \[\(1, 2, 6, 6\)\]"):
        mq.compress(model, example=torch.zeros(1, 2, 6, 6))


def test_shared_weights_are_stored_once_and_stay_shared() -> None:
    model = nn.ModuleDict({"embed": nn.Embedding(7, 5), "head": nn.Linear(5, 7, bias=False)})
    model["head"].weight = model["embed"].weight
    compressed = mq.compress(model)
    assert list(compressed.tensors) == ["embed.weight"]
    assert compressed.aliases == {"head.weight": "embed.weight"}
    module: Any = compressed.module
    assert module["head"].weight is module["embed"].weight
    picked_by_one = mq.compress(model, layers="head", overrides={"head": 4})
    assert picked_by_one.aliases == compressed.aliases
    assert widths(picked_by_one) == {"embed": 4}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_are_taken_as_float32(dtype: torch.dtype) -> None:
    module: Any = mq.compress(mlp().to(dtype)).module
    assert module(torch.rand(2, 6)).dtype == torch.float32


def test_a_weight_that_is_not_finite_is_named() -> None:
    model = mlp()
    model[2].weight.data[0, 0] = float("nan")
    with pytest.raises(InputError, match=r"^2\.weight: .* 1 values"):
        mq.compress(model)


@pytest.mark.parametrize("corrections", [True, False])
@pytest.mark.parametrize("row", [0, 3])
def test_calibration_that_is_not_finite_is_refused(row: int, corrections: bool) -> None:
    x = torch.rand(16, 6)
    x[row, 2] = float("inf")
    with pytest.raises(InputError, match=f"^calibration: input 0: .* in sample {row};"):
        mq.compress(mlp(), calibration=x, corrections=corrections)


def test_other_parametrizations_are_computed_out() -> None:
    model = mlp()
    parametrizations.weight_norm(model[0])
    model[0].parametrizations.weight.original0.data *= 3
    value = model[0].weight.detach().clone()
    compressed = mq.compress(model)
    plain = mlp()
    plain[0].weight.data = value
    assert torch.equal(compressed.tensors["0.weight"].codes, mq.compress(plain).tensors["0.weight"].codes)
    assert torch.equal(model[0].weight, value)
    assert "0.weight" in compressed.module.state_dict()


def test_folding_batchnorm_afterwards_keeps_the_function() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8))
    model(torch.randn(32, 3, 9, 9))  # statistics that are not 0 and 1
    module: Any = mq.compress(model).module
    folded = fusion.fuse_conv_bn_eval(module[0], module[1])
    x = torch.randn(4, 3, 9, 9)
    torch.testing.assert_close(folded(x), module(x), rtol=0, atol=1e-5)


@pytest.mark.parametrize("option", ["rounding", "observer"])
def test_unknown_names_are_refused(option: str) -> None:
    with pytest.raises(InputError, match=f"{option} 'x' is unknown"):
        mq.compress(mlp(), **{option: "x"})  # type: ignore[arg-type]


LAYERS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Any]]] = {
    "linear": (lambda: nn.Linear(5, 4), lambda: torch.randn(3, 5)),
    "conv1d": (lambda: nn.Conv1d(4, 6, 3, groups=2), lambda: torch.randn(2, 4, 8)),
    "conv2d": (lambda: nn.Conv2d(3, 6, 3), lambda: torch.randn(2, 3, 5, 5)),
    "conv3d": (lambda: nn.Conv3d(2, 3, 2), lambda: torch.randn(1, 2, 4, 4, 4)),
    "transposed1d": (lambda: nn.ConvTranspose1d(4, 6, 3, groups=2), lambda: torch.randn(2, 4, 8)),
    "transposed2d": (lambda: nn.ConvTranspose2d(3, 2, 3), lambda: torch.randn(2, 3, 5, 5)),
    "transposed3d": (lambda: nn.ConvTranspose3d(2, 3, 2), lambda: torch.randn(1, 2, 4, 4, 4)),
    "embedding": (lambda: nn.Embedding(9, 4), lambda: torch.arange(9)),
    "transformer": (
        lambda: nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True),
        lambda: torch.randn(2, 5, 8),
    ),
    "conv and norm": (
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU()),
        lambda: torch.randn(4, 3, 5, 5),
    ),
}


@pytest.mark.parametrize(("build", "example"), LAYERS.values(), ids=LAYERS.keys())
def test_training_then_freezing_keeps_the_logits_bit_for_bit(build: Any, example: Any) -> None:
    torch.manual_seed(0)
    model, x = build(), example()
    weights = [weight.name for weight in quantizable_weights(model)]
    assert mq.prepare_qat(model) is model
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    for _ in range(2):
        optimizer.zero_grad()
        model(x).square().mean().backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():  # with an encoder layer, its fast path
        expected = model(x)
        compressed = mq.compress(model)
        assert torch.equal(compressed.module(x), expected)
        assert torch.equal(model(x), expected)  # the prepared model still works
    assert sorted(compressed.tensors) == sorted(weights)
    model.train()
    model(x).sum().backward()
    plain = build()
    assert compressed.module.state_dict().keys() == plain.state_dict().keys()


def test_attention_is_prepared() -> None:
    torch.manual_seed(0)
    model, x = nn.MultiheadAttention(8, 2, batch_first=True), torch.randn(2, 3, 8)
    mq.prepare_qat(model)
    model.eval()
    compressed = mq.compress(model)
    assert set(compressed.tensors) == {"in_proj_weight", "out_proj.weight"}
    with torch.no_grad():  # both take torch's fast path only without gradients
        expected = model(x, x, x, need_weights=False)[0]
        assert torch.equal(compressed.module(x, x, x, need_weights=False)[0], expected)


def test_a_prepared_model_learns_its_scales_and_no_longer_observes() -> None:
    model: Any = mq.prepare_qat(mlp())
    fake = model[0].parametrizations.weight[0]
    before = fake.scale.detach().clone()
    model[0].parametrizations.weight.original.data *= 2
    model(torch.randn(4, 6)).sum().backward()
    assert torch.equal(fake.scale, before)
    assert fake.log_scale.grad.abs().sum() > 0


def test_a_model_prepared_layer_by_layer_keeps_its_widths() -> None:
    model = mlp()
    mq.prepare_qat(model, MuLawSpec(8), layers="0")
    mq.prepare_qat(model, layers="[24]")
    expected = model.eval()(torch.ones(2, 6))
    compressed = mq.compress(model)
    assert widths(compressed) == {"0": 8, "2": 3, "4": 3}
    assert torch.equal(compressed.module(torch.ones(2, 6)), expected)


def test_shared_weights_share_their_fake_quantization() -> None:
    model: Any = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
    model[1].weight = model[0].weight
    mq.prepare_qat(model)
    assert model[0].parametrizations.weight[0] is model[1].parametrizations.weight[0]
    compressed = mq.compress(model)
    assert compressed.aliases == {"1.weight": "0.weight"}


def test_a_shared_weight_is_prepared_at_all_of_its_layers() -> None:
    """Else one layer would be trained in float with the weight that compress gives it in few bits."""
    model: Any = nn.Sequential(nn.Linear(5, 5), nn.Linear(5, 5))
    model[1].weight = model[0].weight
    mq.prepare_qat(model, layers="^1$")
    assert torch.equal(model[0].weight, model[1].weight)
    assert len(torch.unique(model[0].weight[0])) <= 8
    compressed = mq.compress(model)
    assert torch.equal(compressed.tensors["0.weight"].dequantize(), model[0].weight)


def test_what_cannot_be_prepared_is_refused_and_left_alone() -> None:
    model = mlp()
    model[4].weight.data[0, 0] = float("inf")
    with pytest.raises(InputError, match=r"4\.weight"):
        mq.prepare_qat(model)
    assert not hasattr(model[0], "parametrizations")
    model = mlp()
    mq.prepare_qat(model, layers="0")
    with pytest.raises(InputError, match=r"^0\.weight is prepared already"):
        mq.prepare_qat(model)
    with pytest.raises(InputError, match="no option"):
        mq.compress(model, MuLawSpec())
    with pytest.raises(InputError, match="no option"):
        mq.compress(model, rounding="nearest")
    with pytest.raises(InputError, match="no option"):
        mq.compress(model, overrides={"0": 8})
    with pytest.raises(InputError, match="mapped"):
        mq.prepare_qat(mlp(), MuLawSpec(mu=5.0, domain="mapped"))


class Quarter(nn.Module):
    def forward(self, weight: Tensor) -> Tensor:
        return weight / 4


def beneath(weight: Any) -> Any:
    parametrize.remove_parametrizations(weight, "weight")
    parametrize.register_parametrization(weight, "weight", Quarter())
    fake = mq.MuLawFakeQuantize(MuLawSpec(), 0)
    fake.observe(weight.weight)
    parametrize.register_parametrization(weight, "weight", fake)


def twice(weight: Any) -> Any:
    parametrize.register_parametrization(weight, "weight", copy.deepcopy(weight.parametrizations.weight[0]))


@pytest.mark.parametrize("change", [beneath, twice])
def test_where_fake_quantization_comes_last_its_result_is_frozen(change: Any) -> None:
    model: Any = mq.prepare_qat(mlp())
    change(model[2])
    model.eval()
    assert torch.equal(mq.compress(model).module(torch.ones(2, 6)), model(torch.ones(2, 6)))


def test_other_tensors_of_a_prepared_layer_may_be_parametrized() -> None:
    model = mq.prepare_qat(mlp()).eval()
    parametrize.register_parametrization(model[0], "bias", Quarter())  # type: ignore[index]
    compressed = mq.compress(model)
    assert torch.equal(compressed.module(torch.ones(2, 6)), model(torch.ones(2, 6)))


@pytest.mark.slow
@pytest.mark.filterwarnings(
    "ignore:.*torch.ao.quantization.*:DeprecationWarning"
)  # upstream's move to torchao
@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # torch.ao speaks of its own observers
@pytest.mark.parametrize("learn", [False, True])
@pytest.mark.parametrize("name", ["linear", "conv2d", "conv3d"])
def test_the_qconfig_works_with_torch_ao(name: str, learn: bool) -> None:
    from torch.ao import quantization

    torch.manual_seed(0)
    model, x = nn.Sequential(LAYERS[name][0]()), LAYERS[name][1]()
    model.qconfig = mq.mulaw_qconfig(MuLawSpec(4), learn=learn)  # type: ignore[assignment]
    prepared: Any = quantization.prepare_qat(model.train())  # type: ignore[no-untyped-call]
    prepared(x).sum().backward()
    assert isinstance(prepared[0].weight_fake_quant, mq.MuLawFakeQuantize)
    assert (prepared[0].weight_fake_quant.log_scale.grad is not None) == learn
    prepared.eval()
    expected: Tensor = prepared(x)
    compressed = mq.compress(prepared)
    assert compressed.tensors["0.weight"].spec.bits == 4
    assert torch.equal(compressed.module(x), expected)
    assert torch.equal(prepared(x), expected)
    with pytest.raises(InputError, match=r"^0\.weight is prepared already"):
        mq.prepare_qat(prepared)
    parametrizations.spectral_norm(prepared[0])  # the fake quantization comes after it
    normed: Tensor = prepared.eval()(x)
    assert not torch.equal(normed, expected)
    assert torch.equal(mq.compress(prepared).module(x), normed)
