"""Wrappers around modules are seen through, and so are the names that they leave."""

import copy
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn
from torch.distributed import destroy_process_group, init_process_group
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

import muquant as mq
from muquant import InputError
from muquant.base.tensor_files import read_tensors, write_tensors
from muquant.compression.artifact import SCHEMA
from muquant.compression.layers import weight_owners
from muquant.models.wrappers import fit_names, misfit, plain_modules, unwrapped
from muquant_onnx import export_float, export_onnx, verify


def net() -> Any:
    torch.manual_seed(0)
    inner = nn.Sequential(nn.Linear(16, 16), nn.ReLU())
    return nn.Sequential(nn.Flatten(), inner, nn.Linear(16, 16))


def compiled(module: nn.Module) -> nn.Module:
    return torch.compile(module, backend="eager")  # type: ignore[return-value]


def part_wrapped(module: nn.Module) -> nn.Module:
    module[1] = nn.DataParallel(module[1])  # type: ignore[index,operator]
    return module


def part_compiled(module: nn.Module) -> nn.Module:
    module[1] = compiled(module[1])  # type: ignore[index,operator]
    return module


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": lambda module: module,
    "compiled": compiled,
    "DataParallel": nn.DataParallel,
    "averaged": AveragedModel,
    "both": lambda module: compiled(nn.DataParallel(module)),
    "part wrapped": part_wrapped,
    "part compiled": part_compiled,
}
wrapped = pytest.mark.parametrize("wrap", WRAPPERS.values(), ids=WRAPPERS.keys())


@wrapped
def test_what_is_compressed_is_the_plain_module(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model, images = wrap(net()), torch.rand(3, 4, 4)
    model(images)
    before = [*model.state_dict()]
    expected, found = mq.compress(net()), mq.compress(model)
    assert found.report == expected.report
    assert found.left_alone == expected.left_alone
    assert {*found.module.state_dict()} == {*net().state_dict()}
    assert torch.equal(found.module(images), expected.module(images))
    assert [*model.state_dict()] == before  # the model itself keeps its wrappers


def assert_same(one: Path, other: Path) -> None:
    first, second = read_tensors(one, SCHEMA), read_tensors(other, SCHEMA)
    assert first.manifest == second.manifest
    torch.testing.assert_close(dict(first.tensors), dict(second.tensors), rtol=0, atol=0)


@wrapped
def test_a_file_goes_into_every_wrapper(wrap: Callable[[nn.Module], nn.Module], tmp_path: Path) -> None:
    mq.compress(net()).save(tmp_path / "plain.mq")
    mq.compress(wrap(net())).save(tmp_path / "wrapped.mq")
    assert_same(tmp_path / "plain.mq", tmp_path / "wrapped.mq")
    images, model = torch.rand(3, 4, 4), wrap(net().double())
    loaded = mq.load(tmp_path / "plain.mq", model)
    expected = mq.compress(net()).module(images)
    assert torch.equal(loaded.module(images), expected)
    assert torch.equal(model.eval()(images), expected)  # in place
    loaded.save(tmp_path / "again.mq")
    assert_same(tmp_path / "plain.mq", tmp_path / "again.mq")


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "_orig_mod.module.", "model.net."])
@wrapped
def test_a_file_of_an_older_version_has_the_wrappers_in_its_names(
    prefix: str, wrap: Callable[[nn.Module], nn.Module], tmp_path: Path
) -> None:
    tied = net()
    tied[1][0].weight = tied[2].weight = nn.Parameter(torch.randn(16, 16))
    mq.compress(tied).save(tmp_path / "plain.mq")
    file = read_tensors(tmp_path / "plain.mq", SCHEMA)
    tensors = {re.sub(r"^(\w+)\.", rf"\1.{prefix}", key): value for key, value in file.tensors.items()}
    manifest = dict(file.manifest)
    manifest["weights"] = {prefix + name: entry for name, entry in manifest["weights"].items()}
    manifest["aliases"] = {prefix + one: prefix + other for one, other in manifest["aliases"].items()}
    manifest["report"] = [{**each, "name": prefix + each["name"]} for each in manifest["report"]]
    write_tensors(tmp_path / "old.mq", manifest.pop("schema"), tensors, manifest)
    model = net()
    model[1][0].weight = model[2].weight = nn.Parameter(torch.randn(16, 16))
    found = mq.load(tmp_path / "old.mq", wrap(model))
    expected = mq.compress(tied)
    assert found.report == expected.report
    assert found.aliases == expected.aliases
    assert torch.equal(found.module(torch.eye(16)), expected.module(torch.eye(16)))


def test_a_file_of_another_model_says_how_names_differ(tmp_path: Path) -> None:
    mq.compress(net()).save(tmp_path / "a.mq")
    with pytest.raises(
        InputError, match=r"lacks 2 of 4 tensors, first 3.bias, and it has 2 that .* has not, first 2.bias"
    ):
        mq.load(tmp_path / "a.mq", nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.ReLU(), nn.Linear(16, 16)))


@pytest.mark.filterwarnings("ignore:The .grad attribute")  # torch.compile's, of any parametrization
@wrapped
def test_training_goes_on_in_the_wrapper(wrap: Callable[[nn.Module], nn.Module]) -> None:
    model, images = wrap(net()), torch.rand(8, 4, 4)
    assert mq.prepare_qat(model) is model
    assert mq.left_float(model) == mq.left_float(mq.prepare_qat(net()))
    torch.autograd.backward(model(images).square().sum())
    assert all(owner.stored.grad is not None for owner in weight_owners(model))
    frozen = mq.compress(model).module
    assert {*frozen.state_dict()} == {*net().state_dict()}
    assert torch.equal(frozen(images), model.eval()(images))
    plan = mq.plan_widths(wrap(net()), max_bytes=400)
    assert plan.overrides == mq.plan_widths(net(), max_bytes=400).overrides


def test_distributed_models_are_prepared_inside(tmp_path: Path) -> None:
    init_process_group("gloo", init_method=f"file://{tmp_path}/group", rank=0, world_size=1)
    try:
        model = DistributedDataParallel(net())
        with pytest.raises(InputError, match=r"call prepare_qat\(model.module\), then wrap the result"):
            mq.prepare_qat(model)
        assert mq.compress(model).report == mq.compress(net()).report
    finally:
        destroy_process_group()


@pytest.mark.parametrize("lazy", [nn.LazyLinear(4), nn.LazyConv2d(4, 3), nn.LazyBatchNorm1d()], ids=repr)
def test_lazy_modules_have_to_run_once(lazy: nn.Module, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.DataParallel(lazy))
    mq.compress(nn.Linear(4, 4)).save(tmp_path / "a.mq")
    for use in (
        mq.compress,
        mq.prepare_qat,
        lambda model: mq.plan_widths(model, max_bytes=100),
        lambda model: mq.load(tmp_path / "a.mq", model),
    ):
        with pytest.raises(InputError, match=rf"1 \({type(lazy).__name__}\) has no weights yet.*run it once"):
            use(model)


def test_paths_are_those_of_the_module_inside() -> None:
    expected = dict(net().named_modules())
    model = compiled(part_compiled(net()))
    assert [path for path, _ in plain_modules(model)] == [*expected]
    assert unwrapped(model) is model._orig_mod
    assert [path for path, _ in unwrapped(model).named_modules()] == [*expected]


NAMES = {name: name for name in net().state_dict()}


@pytest.mark.parametrize("outer", ["", "module.", "_orig_mod.", "model.", "a.b."])
@pytest.mark.parametrize("inner", ["", "module.", "_orig_mod.", "_orig_mod.module."])
def test_names_fit_in_both_directions(outer: str, inner: str) -> None:
    there = {name: outer + re.sub(r"^1\.", f"1.{inner}", name) for name in NAMES}
    assert fit_names(there.values(), NAMES.keys()) == {other: name for name, other in there.items()}
    assert fit_names(NAMES, there.values()) == there


@given(st.sets(st.lists(st.sampled_from("abcm"), min_size=1, max_size=4).map(".".join), min_size=1))
def test_names_that_fit_stay_as_they_are(names: set[str]) -> None:
    assert fit_names(names, names) == {name: name for name in names}
    mapping = fit_names(names | {"x.y"}, names)
    assert len(set(mapping.values())) == len(mapping)  # nothing is overwritten


def test_two_models_in_one_state_do_not_fit() -> None:
    state = [f"{prefix}.{name}" for prefix in ("model", "ema") for name in NAMES]
    found = fit_names(state, NAMES)
    assert len(set(found.values())) == len(state)
    assert misfit(found.values(), NAMES).startswith("it has 4 that the model has not, first ")
    assert fit_names(["m.w", "w"], ["w"])["w"] == "w"
    assert fit_names(["module.w", "w"], ["w"]) == {"module.w": "module.w", "w": "w"}


@pytest.mark.slow
def test_a_wrapped_model_is_exported_as_the_plain_one(tmp_path: Path) -> None:
    images = torch.rand(3, 4, 4)
    found = mq.compress(compiled(net()))
    export_onnx(found, tmp_path / "a.onnx", images)
    assert verify(found, tmp_path / "a.onnx", images).passed
    assert export_float(compiled(net()), tmp_path / "b.onnx", images) == export_float(
        net(), tmp_path / "c.onnx", images
    )


def states() -> dict[str, Tensor]:
    return {name: value + 1 for name, value in net().state_dict().items()}


def test_a_float_state_goes_into_a_prepared_model() -> None:
    other = net()
    other.load_state_dict(states())
    model: Any = mq.prepare_qat(net(), overrides={"2": 5})
    for target in (model, copy.deepcopy(model)):
        assert str(target.load_state_dict(states())) == "<All keys matched successfully>"
        expected = mq.prepare_qat(other, overrides={"2": 5}) if target is model else model
        for name, value in expected.state_dict().items():
            assert torch.equal(target.state_dict()[name], value), name
    trained = copy.deepcopy(model.state_dict())
    trained["2.parametrizations.weight.0.log_scale"] += 1
    model.load_state_dict(trained)  # its own states are taken as ever
    assert torch.equal(
        model[2].parametrizations.weight[0].log_scale, trained["2.parametrizations.weight.0.log_scale"]
    )


def test_a_float_state_goes_into_a_prepared_part() -> None:
    layer: Any = mq.prepare_qat(nn.MultiheadAttention(8, 2))
    state = {name: 2 * value for name, value in nn.MultiheadAttention(8, 2).state_dict().items()}
    layer.load_state_dict(state)
    assert torch.equal(layer.parametrizations.in_proj_weight.original, state["in_proj_weight"])
    model: Any = mq.prepare_qat(net())
    model[1].load_state_dict({"0.weight": torch.ones(16, 16), "0.bias": torch.zeros(16)})
    assert torch.equal(model[1][0].parametrizations.weight.original, torch.ones(16, 16))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda state: state.pop("2.weight"), "Missing key.*2.parametrizations.weight.original"),
        (lambda state: state.update({"2.weight": torch.ones(3, 3)}), "size mismatch for 2.parametrizations"),
        (lambda state: state.update({"x": torch.ones(3, 3)}), "Unexpected key.*x"),
    ],
    ids=["missing", "shape", "unexpected"],
)
def test_torch_says_what_does_not_fit_a_prepared_model(
    change: Callable[[dict[str, Tensor]], object], words: str
) -> None:
    state, model = states(), mq.prepare_qat(net())
    change(state)
    with pytest.raises(RuntimeError, match=f"(?s){words}"):
        model.load_state_dict(state)


def test_a_float_state_with_nan_is_refused() -> None:
    state = states() | {"2.weight": torch.full((16, 16), torch.nan)}
    with pytest.raises(InputError, match=r"2.weight"):
        mq.prepare_qat(net()).load_state_dict(state)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("place", ["the model", "1"])
def test_what_torch_jit_compiled_is_refused_by_its_place(place: str, tmp_path: Path) -> None:
    layer = torch.jit.script(nn.Linear(4, 4))
    model = layer if place == "the model" else nn.Sequential(nn.Linear(4, 4), layer)
    mq.compress(nn.Linear(4, 4)).save(tmp_path / "a.mq")
    for use in (
        mq.compress,
        mq.prepare_qat,
        mq.left_float,
        lambda model: mq.plan_widths(model, max_bytes=100),
        lambda model: mq.load(tmp_path / "a.mq", model),
    ):
        with pytest.raises(
            InputError, match=rf"{place} is a Linear that torch.jit compiled; .* give that, or"
        ):
            use(model)
