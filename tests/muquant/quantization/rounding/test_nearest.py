from typing import Any

import numpy as np
import pytest
import torch

from muquant import MuLawSpec, QuantizedTensor
from muquant.format.channels import ROWS, Channels
from muquant.format.law import grid_levels
from muquant.format.tensor import step_of
from muquant.quantization.rounding import nearest
from muquant.quantization.rounding.nearest import Codebook, nearest_codes, target

from ...conftest import FORMATS, GRANULARITIES


@pytest.mark.parametrize(("bits", "levels", "mu", "grid"), FORMATS)
def test_codes_come_back_from_what_they_decode_to(bits: int, levels: Any, mu: float, grid: Any) -> None:
    spec = MuLawSpec(bits, mu, levels=levels, grid=grid)
    codes = torch.arange(spec.codes, dtype=torch.uint8)[None]
    for scale in (1.0, 0.3, 1e-30, 1e-43, 1e30):
        step, said = step_of(torch.tensor([[scale]]), spec), f"scale {scale}"
        if step == 0:
            assert scale == 1e-43, said  # the step underflows: all levels are zero
            continue
        quantized = QuantizedTensor(spec, codes, step)
        again = nearest_codes(quantized.dequantize(), step, Codebook.of(spec))
        k = grid_levels(spec)[: spec.codes]
        np.testing.assert_array_equal(k[again[0].int()].numpy(), k.numpy(), err_msg=said)
        distinct = torch.isin(k, k[1:][k.diff() == 0], invert=True)
        np.testing.assert_array_equal(again[0, distinct].numpy(), codes[0, distinct].numpy(), err_msg=said)


@pytest.mark.parametrize(("bits", "levels", "mu", "grid"), FORMATS)
def test_nearest_is_brute_force_and_ties_go_up(bits: int, levels: Any, mu: float, grid: Any) -> None:
    spec = MuLawSpec(bits, mu, levels=levels, grid=grid)
    k = grid_levels(spec)[: spec.codes].numpy().astype(np.float64)
    middles = (k[1:] + k[:-1]) / 2
    random = np.random.default_rng(1).uniform(-1.3, 1.3, 500) * k[-1]
    values = np.unique(np.concatenate((k, middles, random)).astype(np.float32))
    found = nearest_codes(torch.from_numpy(values)[None], torch.ones(1, 1), Codebook.of(spec))[0].numpy()
    distances = np.abs(values.astype(np.float64)[:, None] - k)
    best = len(k) - 1 - distances[:, ::-1].argmin(1)  # the last of the nearest
    np.testing.assert_array_equal(k[found], k[best])  # which of equal levels it is makes no difference


def test_signed_zeros_take_the_same_code() -> None:
    zeros = torch.tensor([[0.0, -0.0]])
    assert nearest_codes(zeros, torch.ones(1, 1), Codebook.of(MuLawSpec(mu=1.0))).tolist() == [[4, 4]]
    assert nearest_codes(
        zeros, torch.ones(1, 1), Codebook.of(MuLawSpec(mu=1.0, levels="mid-tread"))
    ).tolist() == [[3, 3]]


@pytest.mark.parametrize("levels", ["mid-rise", "mid-tread"])
@pytest.mark.parametrize("domain", ["decoded", "mapped"])
def test_a_zero_channel_decodes_to_positive_zero(levels: Any, domain: Any) -> None:
    weight = torch.tensor([[0.0, -0.0, 0.0], [1.0, -1.0, 0.0]])
    spec = MuLawSpec(mu=1.0, levels=levels, domain=domain)
    decoded = nearest(weight, torch.tensor([[0.0], [1.0]]), spec, ROWS).dequantize()[0]
    assert decoded.tolist() == [0, 0, 0]
    assert not decoded.signbit().any()


def test_a_weight_of_one_element() -> None:
    spec = MuLawSpec(mu=1.0)
    assert nearest(
        torch.tensor([-2.0]), torch.tensor([[2.0]]), spec, ROWS
    ).dequantize().item() == pytest.approx(-2.0)


@pytest.mark.parametrize(("bits", "mu"), [(3, 5.0), (3, 255.0), (2, 16.0), (5, 64.0)])
def test_the_mapped_domain_rounds_f_of_the_weight(bits: int, mu: float) -> None:
    weight = np.random.default_rng(2).normal(size=(4, 50)).astype(np.float32)
    scale = np.abs(weight).max(1, keepdims=True)
    mapped = scale * np.sign(weight) * np.log1p(mu * np.abs(weight) / scale) / np.log1p(mu)
    spec = MuLawSpec(bits, mu, domain="mapped")
    found = target(torch.from_numpy(weight), torch.from_numpy(scale), spec)
    np.testing.assert_allclose(found.numpy(), mapped, rtol=1e-5)
    decoded = nearest(torch.from_numpy(weight), torch.from_numpy(scale), spec, ROWS).dequantize().numpy()
    levels = scale[:, :, None] * np.linspace(-1, 1, 2**bits)
    gaps = np.abs(mapped[:, :, None] - levels).min(2)
    np.testing.assert_allclose(np.abs(decoded - mapped), gaps, atol=1e-5)


def test_long_rows_and_many_rows_are_coded_like_short_ones() -> None:
    spec = MuLawSpec(mu=1.0)
    weight = torch.linspace(-1, 1, 3 * 2**18 + 5)
    boundaries = torch.from_numpy(np.convolve(grid_levels(spec).numpy(), [0.5, 0.5], "valid")).float() / 127
    expected = torch.bucketize(weight, boundaries)
    for rows in (weight[None], weight[:, None]):
        codes = nearest_codes(rows, torch.full((1, 1), 1 / 127), Codebook.of(spec)).reshape(-1)
        assert (codes != expected).sum() <= 7  # one next to each boundary, by the rounding of 1 / 127


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("bits", [3, 6])
def test_how_a_weight_lies_in_memory_makes_no_difference(bits: int, granularity: str) -> None:
    spec = MuLawSpec(bits, 20.0, granularity=granularity)
    weight = torch.from_numpy(np.random.default_rng(3).standard_normal((60, 70)).astype(np.float32))
    scale = torch.rand(spec.steps.step_shape(60, 70), generator=torch.Generator().manual_seed(0)) + 0.5
    rows = nearest(weight, scale, spec, ROWS)
    columns = nearest(weight.T.contiguous(), scale, spec, Channels((1,)))
    np.testing.assert_array_equal(columns.codes.numpy().T, rows.codes.numpy())
    assert columns.codes.is_contiguous()
