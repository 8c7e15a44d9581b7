from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from muquant import InputError, MuLawSpec, QuantizedTensor
from muquant.format.law import grid_levels
from muquant.format.packing import unpack
from muquant.format.rows import from_rows, spread, to_matrix, to_rows
from muquant.format.tensor import step_of, sum_by_step
from muquant.quantization.rounding import nearest, refinements
from muquant.quantization.rounding.nearest import nearest_codes, target

SHAPES = [(1,), (7,), (1, 1), (5, 13), (3, 4, 5), (3, 2, 3, 3), (2, 3, 1, 2, 5)]
GRANULARITIES = ["tensor", "channel", "group:1", "group:4", "group:1000"]
FORMATS = [
    (bits, levels, mu, grid)
    for bits in range(2, 9)
    for levels in ("mid-rise", "mid-tread")
    for mu in (0.0, 5.0, 255.0)
    for grid in ("auto", "int4")
    if grid == "auto" or bits <= 4
]


def reference_step(step: Any, granularity: str, shape: tuple[int, ...], axis: int) -> Any:
    """The step of each weight, by going through the weights one at a time."""
    wide = np.empty(shape, np.float32)
    inputs_seen = dict.fromkeys(range(shape[axis]), 0)
    for index in np.ndindex(*shape):
        channel = index[axis]
        place = inputs_seen[channel]  # index runs in row-major order, so a channel's inputs come in theirs
        inputs_seen[channel] += 1
        if granularity == "tensor":
            wide[index] = step[0, 0]
        elif granularity == "channel":
            wide[index] = step[channel, 0]
        else:
            wide[index] = step[channel, place // int(granularity[6:])]
    return wide


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize(("shape", "axis"), [(s, a) for s in SHAPES for a in (0, 1) if a < len(s)], ids=str)
def test_dequantize_is_float32_k_times_step(shape: tuple[int, ...], axis: int, granularity: str) -> None:
    random = np.random.default_rng(0)
    for bits, levels, mu, grid in FORMATS:
        spec = MuLawSpec(bits, mu, granularity=granularity, levels=levels, grid=grid)  # type: ignore[arg-type]
        codes = random.integers(0, 2**bits, shape, np.uint8)
        inputs = codes.size // shape[axis]
        step = random.exponential(size=spec.steps.step_shape(shape[axis], inputs)).astype(np.float32)
        quantized = QuantizedTensor(spec, torch.from_numpy(codes), torch.from_numpy(step), axis)
        k = grid_levels(spec).numpy()[codes]
        expected = k.astype(np.float32) * reference_step(step, granularity, shape, axis)
        np.testing.assert_array_equal(quantized.dequantize().numpy(), expected)
        np.testing.assert_array_equal(quantized.levels().numpy(), k)
        np.testing.assert_array_equal(unpack(quantized.packed(), bits, codes.size), codes.reshape(-1))


@settings(deadline=None)
@given(
    scale=st.floats(2.0**-100, 2.0**100, width=32),
    form=st.sampled_from(
        [
            (3, 5.0, "auto", 127),
            (3, 0.0, "auto", 126),
            (8, 5.0, "auto", 32767),
            (3, 5.0, "int4", 15),
            (3, 0.0, "int4", 7),
        ]
    ),
)
def test_the_step_is_the_float_nearest_to_scale_by_grid_max(
    scale: float, form: tuple[int, float, Any, int]
) -> None:
    bits, mu, grid, grid_max = form
    step = step_of(torch.tensor([[scale]]), MuLawSpec(bits, mu, grid=grid)).numpy()[0, 0]
    exact = Fraction(scale) / grid_max
    error = abs(Fraction(float(step)) - exact)
    for other in (np.nextafter(step, np.float32(0)), np.nextafter(step, np.float32(np.inf))):
        assert error <= abs(Fraction(float(other)) - exact)


@pytest.mark.parametrize("scale", [1.0, 0.3, 1e-30, 1e-43, 1e30])
@pytest.mark.parametrize(("bits", "levels", "mu", "grid"), FORMATS)
def test_codes_come_back_from_what_they_decode_to(
    bits: int, levels: Any, mu: float, grid: Any, scale: float
) -> None:
    spec = MuLawSpec(bits, mu, levels=levels, grid=grid)
    codes = torch.arange(spec.codes, dtype=torch.uint8)[None]
    step = step_of(torch.tensor([[scale]]), spec)
    if step == 0:
        pytest.skip("the step underflows: all levels are zero")
    quantized = QuantizedTensor(spec, codes, step)
    again = nearest_codes(quantized.dequantize(), step, spec)
    k = grid_levels(spec)[: spec.codes]
    np.testing.assert_array_equal(k[again[0].int()].numpy(), k.numpy())
    distinct = torch.isin(k, k[1:][k.diff() == 0], invert=True)
    np.testing.assert_array_equal(again[0, distinct].numpy(), codes[0, distinct].numpy())


@pytest.mark.parametrize(("bits", "levels", "mu", "grid"), FORMATS)
def test_nearest_is_brute_force_and_ties_go_up(bits: int, levels: Any, mu: float, grid: Any) -> None:
    spec = MuLawSpec(bits, mu, levels=levels, grid=grid)
    k = grid_levels(spec)[: spec.codes].numpy().astype(np.float64)
    middles = (k[1:] + k[:-1]) / 2
    random = np.random.default_rng(1).uniform(-1.3, 1.3, 500) * k[-1]
    values = np.unique(np.concatenate((k, middles, random)).astype(np.float32))
    found = nearest_codes(torch.from_numpy(values)[None], torch.ones(1, 1), spec)[0].numpy()
    distances = np.abs(values.astype(np.float64)[:, None] - k)
    best = len(k) - 1 - distances[:, ::-1].argmin(1)  # the last of the nearest
    np.testing.assert_array_equal(k[found], k[best])  # which of equal levels it is makes no difference


def test_signed_zeros_take_the_same_code() -> None:
    zeros = torch.tensor([[0.0, -0.0]])
    assert nearest_codes(zeros, torch.ones(1, 1), MuLawSpec(mu=1.0)).tolist() == [[4, 4]]
    assert nearest_codes(zeros, torch.ones(1, 1), MuLawSpec(mu=1.0, levels="mid-tread")).tolist() == [[3, 3]]


@pytest.mark.parametrize("levels", ["mid-rise", "mid-tread"])
@pytest.mark.parametrize("domain", ["decoded", "mapped"])
def test_a_zero_channel_decodes_to_positive_zero(levels: Any, domain: Any) -> None:
    weight = torch.tensor([[0.0, -0.0, 0.0], [1.0, -1.0, 0.0]])
    spec = MuLawSpec(mu=1.0, levels=levels, domain=domain)
    decoded = nearest(weight, torch.tensor([[0.0], [1.0]]), spec, 0).dequantize()[0]
    assert decoded.tolist() == [0, 0, 0]
    assert not decoded.signbit().any()


def test_a_weight_of_one_element() -> None:
    spec = MuLawSpec(mu=1.0)
    assert nearest(torch.tensor([-2.0]), torch.tensor([[2.0]]), spec, 0).dequantize().item() == pytest.approx(
        -2.0
    )


@pytest.mark.parametrize(("bits", "mu"), [(3, 5.0), (3, 255.0), (2, 16.0), (5, 64.0)])
def test_the_mapped_domain_rounds_f_of_the_weight(bits: int, mu: float) -> None:
    weight = np.random.default_rng(2).normal(size=(4, 50)).astype(np.float32)
    scale = np.abs(weight).max(1, keepdims=True)
    mapped = scale * np.sign(weight) * np.log1p(mu * np.abs(weight) / scale) / np.log1p(mu)
    spec = MuLawSpec(bits, mu, domain="mapped")
    found = target(torch.from_numpy(weight), torch.from_numpy(scale), spec)
    np.testing.assert_allclose(found.numpy(), mapped, rtol=1e-5)
    decoded = nearest(torch.from_numpy(weight), torch.from_numpy(scale), spec, 0).dequantize().numpy()
    levels = scale[:, :, None] * np.linspace(-1, 1, 2**bits)
    gaps = np.abs(mapped[:, :, None] - levels).min(2)
    np.testing.assert_allclose(np.abs(decoded - mapped), gaps, atol=1e-5)


@settings(deadline=None)  # the first call starts torch up
@given(
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.sampled_from(GRANULARITIES),
    st.integers(0, 3),
    st.integers(0, 2**32 - 1),
)
def test_rows_come_back_and_sum_by_step_is_the_transpose_of_spread(
    sizes: list[int], granularity: str, place: int, seed: int
) -> None:
    shape, axis = tuple(sizes), place % len(sizes)
    spec = MuLawSpec(mu=1.0, granularity=granularity)
    random = torch.Generator().manual_seed(seed)
    weight = torch.randn(shape, generator=random, dtype=torch.float64)
    rows = to_rows(weight, spec, axis)
    torch.testing.assert_close(from_rows(rows, spec, shape, axis), weight, rtol=0, atol=0)
    step_shape = spec.steps.step_shape(shape[axis], weight.numel() // shape[axis])
    assert len(rows) == (step_shape[0] * step_shape[1] if granularity != "tensor" else shape[axis])
    step = torch.randn(step_shape, generator=random, dtype=torch.float64)
    wide = spread(step, spec, shape, axis).expand(shape)
    expected = reference_step(step.numpy().astype(np.float32), granularity, shape, axis)
    np.testing.assert_array_equal(wide.numpy().astype(np.float32), expected)
    summed = sum_by_step(weight, spec, axis)
    assert summed.shape == step_shape
    torch.testing.assert_close((wide * weight).sum(), (step * summed).sum())  # <spread s, w> = <s, sum w>


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_matrix_has_the_channel_axis_first(axis: int) -> None:
    weight = np.arange(24).reshape(2, 3, 4)
    expected = np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)
    np.testing.assert_array_equal(to_matrix(torch.from_numpy(weight), axis).numpy(), expected)


def test_long_rows_and_many_rows_are_coded_like_short_ones() -> None:
    spec = MuLawSpec(mu=1.0)
    weight = torch.linspace(-1, 1, 3 * 2**18 + 5)
    boundaries = torch.from_numpy(np.convolve(grid_levels(spec).numpy(), [0.5, 0.5], "valid")).float() / 127
    expected = torch.bucketize(weight, boundaries)
    for rows in (weight[None], weight[:, None]):
        codes = nearest_codes(rows, torch.full((1, 1), 1 / 127), spec).reshape(-1)
        assert (codes != expected).sum() <= 7  # one next to each boundary, by the rounding of 1 / 127


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"codes": torch.full((2, 3), 8, dtype=torch.uint8)}, "code 8 does not fit in 3 bits"),
        ({"codes": torch.zeros(2, 3, dtype=torch.int64)}, "expected uint8"),
        ({"codes": torch.zeros((), dtype=torch.uint8)}, "channel axis"),
        ({"step": torch.ones(2, 1, dtype=torch.float64)}, "expected uint8 and float32"),
        ({"step": torch.ones(1, 1)}, r"expected \(2, 1\)"),
        ({"step": torch.ones(2)}, r"expected \(2, 1\)"),
        ({"step": torch.tensor([[1.0], [-1.0]])}, "negative"),
        ({"step": torch.tensor([[1.0], [float("nan")]])}, "not finite"),
        ({"step": torch.tensor([[1.0], [float("inf")]])}, "not finite"),
        ({"channel_axis": 2}, "channel axis 2"),
        ({"channel_axis": -1}, "channel axis -1"),
    ],
    ids=str,
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Any], message: str) -> None:
    parts = {
        "spec": MuLawSpec(mu=1.0),
        "codes": torch.zeros(2, 3, dtype=torch.uint8),
        "step": torch.ones(2, 1),
    }
    QuantizedTensor(**parts)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        QuantizedTensor(**{**parts, **change})


@pytest.mark.parametrize(("bits", "count", "size"), [(3, 15, 6 + 12), (3, 24, 9 + 12), (5, 3, 5 + 12)])
def test_bytes_are_those_of_packed_codes_and_steps(bits: int, count: int, size: int) -> None:
    codes = torch.zeros(3, count // 3, dtype=torch.uint8)
    quantized = QuantizedTensor(MuLawSpec(bits, 1.0), codes, torch.ones(3, 1))
    assert quantized.nbytes == size == quantized.packed().nbytes + 4 * quantized.step.numel()


def test_an_unknown_rounding_is_refused() -> None:
    with pytest.raises(InputError, match="expected one of nearest"):
        refinements("up")


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("bits", [3, 6])
def test_how_a_weight_lies_in_memory_makes_no_difference(bits: int, granularity: str) -> None:
    spec = MuLawSpec(bits, 20.0, granularity=granularity)
    weight = torch.from_numpy(np.random.default_rng(3).standard_normal((60, 70)).astype(np.float32))
    scale = torch.rand(spec.steps.step_shape(60, 70), generator=torch.Generator().manual_seed(0)) + 0.5
    rows = nearest(weight, scale, spec, 0)
    columns = nearest(weight.T.contiguous(), scale, spec, 1)
    np.testing.assert_array_equal(columns.codes.numpy().T, rows.codes.numpy())
    assert columns.codes.is_contiguous()
