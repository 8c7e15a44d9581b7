"""A weight that is trained starts as it was rounded, and goes back to codes that decode alike."""

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from muquant.compression.tuning.latent import LatentWeight
from muquant.format.channels import ROWS, Channels
from muquant.format.spec import MuLawSpec
from muquant.format.steps import coded_steps
from muquant.format.tensor import QuantizedTensor
from muquant.quantization.quantize import quantize


def rounded(weight: Tensor, spec: MuLawSpec, channels: Channels = ROWS) -> QuantizedTensor:
    return quantize(weight, spec, channels, "search", "nearest").tensor


@given(
    bits=st.integers(2, 8),
    mu=st.sampled_from([0.0, 20.0, 255.0]),
    granularity=st.sampled_from(["tensor", "channel", "group:5"]),
    levels=st.sampled_from(["mid-rise", "mid-tread"]),
    seed=st.integers(0, 99),
)
def test_it_starts_with_the_codes_that_it_is_given(
    bits: int, mu: float, granularity: str, levels: str, seed: int
) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(4, 3, 7, generator=generator)
    start = rounded(weight, MuLawSpec(bits, mu, granularity=granularity, levels=levels))  # type: ignore[arg-type]
    moved = start.codes.int() + torch.randint(-1, 2, start.shape, generator=generator)
    codes = moved.clamp(0, start.spec.codes - 1).to(torch.uint8)  # not all at their nearest levels
    start = QuantizedTensor(start.spec, codes, start.step, start.channels)
    latent = LatentWeight(start, weight)
    torch.testing.assert_close(latent(), start.dequantize(), rtol=1e-6, atol=0)
    found = latent.quantized()
    assert torch.equal(found.dequantize(), latent())
    torch.testing.assert_close(found.step, start.step, rtol=1e-6, atol=0)


def test_many_steps_stay_short() -> None:
    weight = torch.randn(100, 7, generator=torch.Generator().manual_seed(0))
    start = rounded(weight, MuLawSpec(3, 20.0))
    assert coded_steps(start.step.numpy()) is not None
    latent = LatentWeight(start, weight)
    assert torch.equal(latent(), start.dequantize())
    with torch.no_grad():
        latent.log_scale.add_(0.1)
    found = latent.quantized()
    assert torch.equal(found.dequantize(), latent())
    assert coded_steps(found.step.numpy()) is not None
    assert not torch.equal(found.step, start.step)


def test_a_number_whose_cell_holds_the_float_weight_starts_at_that() -> None:
    weight = torch.randn(6, 40, generator=torch.Generator().manual_seed(0))
    start = rounded(weight, MuLawSpec(4, 20.0))
    latent = LatentWeight(start, weight)
    scale = (start.step * start.spec.grid_max).reshape(-1, 1)
    apart = (latent.unit * scale - weight).abs()
    assert float((apart < 1e-6).float().mean()) > 0.8  # others lie near a boundary, or beyond the last level


def test_a_channel_of_zeros_stays_zero() -> None:
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    weight[1] = 0
    latent = LatentWeight(rounded(weight, MuLawSpec(3, 20.0)), weight)
    latent().square().sum().backward()
    for value in (latent.unit, latent.log_scale):
        assert value.grad is not None
        assert bool(value.grad.isfinite().all())
    assert not latent()[1].any()


def test_inputs_are_what_adds_up_to_an_output() -> None:
    weight = torch.randn(4, 6, 3, 3)
    assert LatentWeight(rounded(weight, MuLawSpec(3, 20.0)), weight).inputs == 54
    turned = rounded(weight, MuLawSpec(3, 20.0), Channels((1,)))
    assert LatentWeight(turned, weight).inputs == 36


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group:5"])
def test_steps_along_the_gradient_lower_the_error(granularity: str) -> None:
    generator = torch.Generator().manual_seed(0)
    weight, x = torch.randn(8, 20, generator=generator), torch.randn(200, 5, generator=generator)
    x = x @ torch.randn(5, 20, generator=generator)  # of white inputs nearest levels are the best there are
    latent = LatentWeight(rounded(weight, MuLawSpec(2, 20.0, granularity=granularity)), weight)
    optimizer = torch.optim.Adam([latent.unit, latent.log_scale], 2e-3)
    losses = []
    for _ in range(60):
        loss = (x @ (latent() - weight).T).square().mean()
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert min(losses) < 0.9 * losses[0]
