"""Moments of layers' inputs, held to what the layers compute."""

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor, nn

import muquant
from muquant.base.errors import InputError
from muquant.compression.calibration import collect_moments, operators, read_samples, split
from muquant.compression.layers import Owner, Weight, quantizable_weights
from muquant.format.channels import Channels
from muquant.format.rows import to_matrix
from muquant.models.calls import Example
from muquant.quantization.moments import InputMoments, Moments
from muquant.quantization.sums import MomentSums, VectorSums

CONVOLUTIONS: dict[int, type[nn.Module]] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


def collect(model: nn.Module, *inputs: Tensor) -> dict[str, Moments]:
    found = collect_moments(model.eval(), quantizable_weights(model), read_samples(inputs))
    return {weight.name: moments for weight, moments in found.items() if isinstance(moments, Moments)}


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed)) - 0.3


def check(layer: Any, moments: Moments, x: Tensor) -> None:
    """Oracle: the mean square of what the layer itself makes of x, for its own weight and another."""
    for seed in range(2):
        weight = uniform(*layer.weight.shape, seed=seed)
        with torch.no_grad():
            layer.weight.copy_(weight)
            output = layer(x)
        channels = output.movedim(1 if layer.weight.dim() > 2 else -1, 0).flatten(1)
        torch.testing.assert_close(moments.power(weight.flatten(1)), channels.square().mean(1))


@settings(deadline=None, max_examples=60)
@given(data=st.data(), places=st.sampled_from([1, 2, 3]))
def test_a_convolution_s_patches(data: st.DataObject, places: int) -> None:
    def sizes(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(low, high)) for _ in range(places))

    groups = data.draw(st.sampled_from([1, 2, 4]))
    layer: Any = CONVOLUTIONS[places](
        4, 4, sizes(1, 3), sizes(1, 2), sizes(0, 2), sizes(1, 2), groups=groups, bias=False
    )
    x = uniform(3, 4, *sizes(5, 6))
    moments = collect(layer, x)["weight"]
    assert moments.second.shape == (groups, *2 * [math.prod(layer.weight.shape[1:])])
    check(layer, moments, x)


TRANSPOSED: dict[int, type[nn.Module]] = {
    1: nn.ConvTranspose1d,
    2: nn.ConvTranspose2d,
    3: nn.ConvTranspose3d,
}


@settings(deadline=None, max_examples=60)
@given(data=st.data(), places=st.sampled_from([1, 2, 3]))
def test_what_a_transposed_convolution_multiplies(data: st.DataObject, places: int) -> None:
    """Oracle: the mean square of each channel of what the layer makes of x."""

    def sizes(low: int, high: int) -> tuple[int, ...]:
        return tuple(data.draw(st.integers(low, high)) for _ in range(places))

    groups, stride = data.draw(st.sampled_from([1, 2, 4])), sizes(1, 3)
    layer: Any = TRANSPOSED[places](
        4,
        8,
        sizes(1, 3),
        stride,
        sizes(0, 1),
        tuple(data.draw(st.integers(0, step - 1)) for step in stride),
        groups,
        bias=False,
        dilation=sizes(3, 3),  # which allows any output padding
    )
    x = uniform(3, 4, *sizes(4, 5))
    (weight,) = quantizable_weights(layer)
    moments = collect(layer, x)["weight"]
    assert len(moments.second) == groups
    with torch.no_grad():
        torch.nn.init.normal_(layer.weight)
        channels = layer(x).movedim(1, 0).flatten(1)
    power = moments.power(to_matrix(layer.weight.detach(), weight.channels))
    torch.testing.assert_close(power, channels.square().mean(1), rtol=1e-4, atol=1e-5)


class Stack(nn.Module):
    """A parameter [experts, inputs, outputs], or with `left` [experts, outputs, inputs]."""

    def __init__(self, left: bool) -> None:
        super().__init__()
        self.left = left
        self.weight = nn.Parameter(uniform(3, 6, 6, seed=4))

    def forward(self, x: Tensor) -> Tensor:
        x = x.expand(3, -1, -1)
        return torch.bmm(self.weight, x) if self.left else torch.bmm(x, self.weight)


@pytest.mark.parametrize("left", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_a_stack_of_matrices(own: bool, left: bool) -> None:
    """Each has vectors of its own, or all the same: columns where the matrix is on the left."""
    model, x = Stack(left), uniform(3 if own else 1, *((6, 5) if left else (5, 6)))
    channels = Channels((0, 1 if left else 2))
    weight = Weight((Owner("", model, "weight", channels, tied=False, place=0),), None)
    (moments,) = collect_moments(model, [weight], read_samples(x)).values()
    assert isinstance(moments, Moments)
    assert len(moments.second) == (3 if own else 1)
    with torch.no_grad():
        output = model(x)
    wanted = output.square().mean(2 if left else 1).flatten()
    power = moments.power(to_matrix(model.weight.detach(), channels))
    torch.testing.assert_close(power, wanted, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("padding", ["same", "valid"])
def test_padding_by_name(padding: str) -> None:
    layer = nn.Conv2d(2, 3, (3, 5), padding=padding, bias=False)
    x = uniform(5, 2, 6, 6)
    check(layer, collect(layer, x)["weight"], x)


@pytest.mark.parametrize("shape", [(7, 6), (3, 5, 6), (2, 3, 5, 6)], ids=str)
@pytest.mark.parametrize("bias", [True, False])
def test_a_linear_layer_s_inputs(shape: tuple[int, ...], bias: bool) -> None:
    layer = nn.Linear(6, 4, bias=bias)
    x = uniform(*shape)
    moments = collect(layer, x)["weight"]
    rows = x.reshape(-1, 6)
    assert moments.count == len(rows)
    torch.testing.assert_close(moments.second[0], rows.T @ rows / len(rows))
    torch.testing.assert_close(moments.fourth[0], rows.square().sum(1).square().mean())


def test_batches_and_repeated_calls_add_up() -> None:
    layer = nn.Linear(6, 6)
    x = uniform(70, 6)
    moments = collect(nn.Sequential(layer, layer), x)["0.weight"]
    rows = torch.cat((x, layer(x).detach()))
    assert moments.count == 140
    torch.testing.assert_close(moments.second[0], rows.T @ rows / 140)


def test_weights_used_by_hand_are_seen() -> None:
    class ByHand(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 4)

        def forward(self, x: Tensor) -> Tensor:
            product: Tensor = x @ self.layer.weight.T
            return product

    x = uniform(9, 6)
    torch.testing.assert_close(collect(ByHand(), x)["layer.weight"].second[0], x.T @ x / 9)


def test_a_square_weight_s_inputs_are_not_those_of_its_transpose() -> None:
    class BothWays(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            both: Tensor = self.layer(x) @ self.layer.weight
            return both

    x = uniform(9, 6)
    moments = collect(BothWays(), x)["layer.weight"]
    assert moments.count == 9
    torch.testing.assert_close(moments.second[0], x.T @ x / 9)


def test_attention_s_projections_are_seen() -> None:
    encoder = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    x = uniform(5, 3, 8)
    found = collect(encoder, x)
    assert set(found) == {weight.name for weight in quantizable_weights(encoder)}
    rows = x.reshape(-1, 8)
    torch.testing.assert_close(found["self_attn.in_proj_weight"].second[0], rows.T @ rows / 15)
    seen: list[Tensor] = []
    encoder.linear1.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0].reshape(-1, 8)))
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        encoder(x)
    finally:
        torch.backends.mha.set_fastpath_enabled(True)
    torch.testing.assert_close(found["linear1.weight"].second[0], (seen[0].T @ seen[0] / 15).detach())


def test_what_is_no_matrix_times_vectors_is_left_out() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(5, 4)
            self.unused = nn.Linear(4, 4)
            self.cross = nn.MultiheadAttention(4, 2, batch_first=True)  # its in-projection is cut in parts

        def forward(self, x: Tensor) -> Tensor:
            other = self.table(torch.arange(5))[None].expand(len(x), -1, -1)
            mixed: Tensor = self.cross(x, other, other)[0]
            return mixed

    model = Odd()
    found = collect_moments(model.eval(), quantizable_weights(model), read_samples(uniform(3, 4, 4)))
    reasons = {weight.name: why for weight, why in found.items() if isinstance(why, str)}
    assert reasons == {
        "table.weight": "its rows are looked up, and multiply nothing",
        "unused.weight": "the samples do not reach it, or no product takes it as it is",
        "cross.in_proj_weight": "it is multiplied in parts, or turned round",
    }
    reports = {layer.name: layer for layer in muquant.compress(model, calibration=uniform(8, 4, 4)).report}
    assert {name: layer.not_calibrated for name, layer in reports.items() if layer.not_calibrated} == reasons
    assert all(layer.not_calibrated == "" for layer in muquant.compress(model).report)


def test_of_large_images_patches_are_drawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many of all samples as was set, a batch its share of them, and evenly."""
    layer = nn.Conv2d(2, 3, 3, bias=False)
    x = uniform(40, 2, 40, 40)
    whole = collect(layer, x)["weight"]
    monkeypatch.setattr(operators, "LEAST_VECTORS", 4000)
    drawn, again = collect(layer, x)["weight"], collect(layer, x)["weight"]
    assert whole.count == 24_000  # of 57,760: two batches, 32 and 8
    assert drawn.count == 4000
    torch.testing.assert_close(drawn.second, again.second, rtol=0, atol=0)
    torch.testing.assert_close(drawn.second, whole.second, rtol=0, atol=0.02)
    half = collect_moments(layer.eval(), quantizable_weights(layer), read_samples(x), total=80)
    assert [each.count for each in half.values() if not isinstance(each, str)] == [2000]


@settings(deadline=None, max_examples=60)
@given(count=st.integers(2401, 10**9), seed=st.integers(0, 99))
def test_draws_are_of_all_parts(count: int, seed: int) -> None:
    draw = operators.Draw(torch.Generator().manual_seed(seed), 0.1)
    assert draw(2400, 5) is None
    places = draw(count, 5)
    assert places is not None
    begins = np.arange(2401) * (count / 2400)
    assert (places.numpy() >= begins[:-1] - 1).all()
    assert (places.numpy() <= begins[1:]).all()
    assert int(places.max()) < count


class Shared(nn.Module):
    """Two layers of one input, that is changed in place before a third takes it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Linear(6, 4) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        y = x * 2
        one, two = self.one(y), self.two(y)
        y.add_(1)
        return one + two + self.three(y)  # type: ignore[no-any-return]


def test_what_layers_share_is_summed_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    of = VectorSums.of

    def counted(vectors: Tensor) -> VectorSums:
        calls.append(vectors.shape[1])
        return of(vectors)

    monkeypatch.setattr(VectorSums, "of", counted)
    x = uniform(70, 6)
    found = collect(Shared(), x)
    assert calls == [32, 32, 32, 32, 6, 6]  # of three layers, two share theirs
    torch.testing.assert_close(found["one.weight"].second, found["two.weight"].second, rtol=0, atol=0)
    for name, rows in (("one", 2 * x), ("three", 2 * x + 1)):
        torch.testing.assert_close(found[f"{name}.weight"].second[0], rows.T @ rows / 70)


@settings(deadline=None, max_examples=20)
@given(blocks=st.integers(1, 2), inputs=st.integers(256, 300), seed=st.integers(0, 99))
def test_half_of_a_wide_second_moment_is_reflected(blocks: int, inputs: int, seed: int) -> None:
    x = uniform(blocks, 20, inputs, seed=seed)
    torch.testing.assert_close(sums(x).second, x.mT @ x / 20)


def sums(vectors: Tensor) -> Moments:
    """The moments of [blocks, n, inputs]."""
    found = MomentSums("layer", (1, vectors.shape[2]))
    found.add(VectorSums.of(vectors))
    return found.moments()


@settings(deadline=None, max_examples=40)
@given(blocks=st.integers(1, 3), inputs=st.integers(1, 6), seed=st.integers(0, 99))
def test_moments_about_a_point_are_those_of_what_is_less_by_it(blocks: int, inputs: int, seed: int) -> None:
    x, center = uniform(blocks, 20, inputs, seed=seed), 2 * uniform(blocks, inputs, seed=seed + 1)
    found, expected = sums(x).about(center), sums(x - center[:, None])
    for name in ("mean", "second", "third", "fourth", "count"):
        torch.testing.assert_close(
            getattr(found, name), getattr(expected, name), rtol=1e-4, atol=1e-4, msg=name
        )


@settings(deadline=None, max_examples=40)
@given(count=st.integers(2, 60), inputs=st.integers(2, 12), seed=st.integers(0, 99))
def test_the_shrinkage_is_ledoit_and_wolf_s(count: int, inputs: int, seed: int) -> None:
    rows = uniform(count, inputs, seed=seed).double()
    second = rows.T @ rows / count
    share = max(0.003, float(ledoit_wolf_shrinkage(rows.numpy(), assume_centered=True)))
    expected = (1 - share) * second + share * second.diagonal().mean() * torch.eye(inputs)
    found = sums(rows[None].float()).shrunk
    torch.testing.assert_close(found[0], expected.float(), rtol=1e-3, atol=1e-5)


def test_dead_inputs_leave_it_invertible() -> None:
    x = uniform(50, 6)
    x[:, 2] = 0
    shrunk = collect(nn.Linear(6, 4), x)["weight"].shrunk
    assert math.isfinite(float(torch.linalg.cholesky(shrunk).sum()))


def test_a_model_that_does_not_run_is_named() -> None:
    with pytest.raises(InputError, match=r"Linear does not run on inputs of shape \[\(3, 5\)\].*trained on"):
        collect(nn.Linear(6, 4), uniform(3, 5))


@pytest.mark.parametrize("value", [0.0, 1.0, 1e4])
def test_inputs_that_never_change_leave_it_invertible(value: float) -> None:
    known = sums(torch.full((1, 40, 6), value))
    for moments in (known, known.about(known.mean)):
        assert math.isfinite(float(torch.linalg.cholesky(moments.shrunk).sum()))


def bad(value: float, *rows: int) -> Tensor:
    x = uniform(9, 3, 2)
    x[list(rows), 1, 1] = value
    return x


@pytest.mark.parametrize(
    ("calibration", "message"),
    [
        (
            bad(math.nan, 7, 3),
            "input 0: expected finite numbers, found NaN or infinity in sample 3; 2 of 9 are so; mend",
        ),
        (bad(math.inf, 0).double(), "input 0: .* sample 0;"),
        ((torch.arange(9), bad(math.inf, 8).bfloat16()), "input 1: .* sample 8;"),
        ({"ids": torch.arange(9), "mask": bad(math.nan, 5)[:, 1, 1]}, "input mask: .* sample 5;"),
    ],
    ids=["first", "double", "place", "name"],
)
def test_samples_that_are_not_finite_are_named(calibration: Example, message: str) -> None:
    with pytest.raises(InputError, match=f"^calibration: {message}"):
        split(calibration)


class Masked(nn.Module):
    """A layer behind an additive mask, and its softmax."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 4)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return self.layer((x + mask).softmax(1))  # type: ignore[no-any-return]


def test_negative_infinity_is_good_in_a_mask_and_nowhere_else() -> None:
    x, mask = uniform(9, 6), torch.zeros(9, 6)
    mask[4, 2:] = -math.inf
    model = Masked()
    (report,) = muquant.compress(model, calibration=(x, mask)).report
    assert report.output_sqnr is not None
    with pytest.raises(InputError, match=r"^layer\.weight: calibration: expected finite inputs .* found NaN"):
        muquant.compress(model, calibration=(x, torch.full((9, 6), -math.inf)))


def test_what_is_finite_is_a_sample() -> None:
    large = torch.full((4, 2), torch.finfo(torch.float64).max, dtype=torch.float64)
    tensors = (large, torch.arange(4), torch.arange(4) > 1, torch.ones(4, 0))
    fit, held_out = split(tensors)
    for tensor, one, other in zip(tensors, fit.parts[0].tensors, held_out.parts[0].tensors, strict=True):
        assert torch.equal(tensor, torch.cat((one, other)))


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()


def test_a_layer_whose_inputs_the_model_makes_not_finite_is_named() -> None:
    model, x = nn.Sequential(nn.Linear(6, 4), Root(), nn.Linear(4, 2)), uniform(70, 6).abs()
    nn.init.ones_(model[0].weight)  # type: ignore[arg-type]
    assert set(collect(model, x)) == {"0.weight", "2.weight"}
    x[40] = -9
    with pytest.raises(
        InputError, match=r"^2\.weight: calibration: .*found NaN or infinity in 1 of 70 vectors; give"
    ):
        collect(model, x)


@settings(deadline=None, max_examples=60)
@given(power=st.integers(-100, 100), blocks=st.integers(1, 3), seed=st.integers(0, 99))
def test_moments_of_large_and_small_inputs_are_those_of_others_in_another_unit(
    power: int, blocks: int, seed: int
) -> None:
    x = uniform(blocks, 40, 6, seed=seed)
    known, scaled = sums(x), sums(x * 2.0**power)
    share = scaled.unit * 2.0**-power
    for degree, name in enumerate(("mean", "second", "third", "fourth"), 1):
        expected = getattr(known, name).double()
        torch.testing.assert_close(
            getattr(scaled, name).double() * share**degree, expected, rtol=0, atol=0, msg=name
        )
    torch.testing.assert_close(scaled.shrunk.double() * share**2, known.shrunk.double(), rtol=0, atol=0)
    assert (known.unit, known.count) == (1, scaled.count)


@settings(deadline=None, max_examples=60)
@given(powers=st.lists(st.integers(-60, 60), min_size=1, max_size=6))
def test_batches_of_very_different_magnitudes_add_up(powers: list[int]) -> None:
    """Oracle: the moments in float64."""
    found = MomentSums("layer", (1, 3))
    batches = [uniform(1, 7, 3, seed=seed) * 2.0**power for seed, power in enumerate(powers)]
    found.add(VectorSums.of(torch.zeros(1, 7, 3)))
    for batch in batches:
        found.add(VectorSums.of(batch))
    moments, x = found.moments(), torch.cat(batches, 1)[0].double() / found.moments().unit
    torch.testing.assert_close(moments.second[0].double() * moments.count, x.T @ x, rtol=1e-4, atol=1e-4)
    fourth = x.square().sum(1).square().sum()
    torch.testing.assert_close(moments.fourth[0].double() * moments.count, fourth, rtol=1e-4, atol=1e-7)
    assert moments.count == 7 * (len(powers) + 1)


def test_samples_held_out_that_are_larger_share_a_unit_with_the_others() -> None:
    x = uniform(1, 40, 6)
    both = InputMoments.of(sums(x), sums(x * 2.0**40))
    assert both.fit.unit == both.held_out.unit > 2.0**30
    back = (both.fit.second.double() * both.fit.unit**2).float()
    torch.testing.assert_close(back, sums(x).second, rtol=0, atol=0)


@pytest.mark.parametrize("power", [-90, -30, 30, 33, 90])
def test_what_is_made_of_a_layer_does_not_depend_on_the_size_of_its_inputs_and_weights(power: int) -> None:
    """By a power of two: codes are the same, and so is what is said of them."""
    torch.manual_seed(0)
    layer, x, factor = nn.Linear(12, 9), uniform(80, 12).cumsum(1)[:, None], 2.0**power
    other = copy.deepcopy(layer)
    expected = muquant.compress(layer, calibration=x)
    other.bias.data.mul_(factor)
    moved = muquant.compress(other, calibration=x * factor)
    other.weight.data.mul_(factor)
    larger = muquant.compress(other, calibration=x)
    for found, share in ((moved, 1.0), (larger, factor)):
        one, two = expected.tensors["weight"], found.tensors["weight"]
        assert torch.equal(one.codes, two.codes)
        torch.testing.assert_close(two.step / share, one.step)
        torch.testing.assert_close(
            found.module.state_dict()["bias"] / factor, expected.module.state_dict()["bias"]
        )
        (one_said,), (two_said,) = expected.report, found.report
        assert two_said.rounding == one_said.rounding != "nearest"
        assert two_said.output_sqnr == pytest.approx(one_said.output_sqnr)
        assert two_said.sqnr == pytest.approx(one_said.sqnr)
    for each, inputs in ((layer, x * factor), (other, x)):
        plan = muquant.plan_widths(each, max_bytes=100, calibration=inputs)
        assert plan.bits == muquant.plan_widths(layer, max_bytes=100, calibration=x).bits


@pytest.mark.parametrize("scale", [1e9, 1e10, 1e30, 1e-12, 1e-30])
def test_large_and_small_samples_are_samples(scale: float) -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(24, 12), nn.ReLU(), nn.Linear(12, 10)), uniform(64, 24).cumsum(1)
    for name in ("0.bias", "2.bias"):
        nn.init.zeros_(model.get_parameter(name))  # else there is nothing but them behind small samples
    for each in muquant.compress(model, calibration=x * scale).report:
        assert each.output_sqnr is not None
        assert 10 < each.output_sqnr < 60
    plan = muquant.plan_widths(model, max_bytes=300, calibration=x * scale)
    assert sum(plan.bits.values()) > 6
