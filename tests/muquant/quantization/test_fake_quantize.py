from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor
from torch.ao import quantization as torch_ao

from muquant import AbsMaxObserver, InputError, MuLawFakeQuantize, MuLawSpec
from muquant.format.channels import Channels
from muquant.format.law import grid_levels
from muquant.format.rows import spread

GRANULARITIES = ["tensor", "channel", "group:4"]


def prepared(weight: Tensor, **fields: Any) -> MuLawFakeQuantize:
    axis = fields.pop("channel_axis", 0)
    fake = MuLawFakeQuantize(MuLawSpec(**fields), axis)
    fake(weight)
    fake.disable_observer()
    return fake


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("bits", [2, 3, 8])
@pytest.mark.parametrize("axis", [0, 1, Channels((0, 2)), Channels((1,), 2), Channels((), 3)], ids=str)
@pytest.mark.parametrize("last", [False, True])
def test_forward_is_what_is_deployed(last: bool, axis: int | Channels, bits: int, granularity: str) -> None:
    weight = torch.randn(6, 5, 3, 2, generator=torch.Generator().manual_seed(0))
    if last:  # the order of its memory
        weight = weight.to(memory_format=torch.channels_last)
    fake = prepared(weight, bits=bits, granularity=granularity, channel_axis=axis)
    other = weight + 0.1
    assert fake(other).stride() == weight.stride()
    assert torch.equal(fake(other), fake.quantize(other).dequantize())


def bits_of(values: Tensor) -> Tensor:
    """Float32 as integers: 0 and -0 differ, NaN equals itself."""
    return values.contiguous().view(torch.int32)


@pytest.mark.parametrize("granularity", ["tensor", "channel"])
@pytest.mark.parametrize("levels", ["mid-rise", "mid-tread"])
@pytest.mark.parametrize(
    ("bits", "grid"), [*((bits, "auto") for bits in range(2, 9)), *((bits, "int4") for bits in (2, 3, 4))]
)
def test_every_boundary_is_decoded_as_deployed(bits: int, grid: Any, levels: Any, granularity: str) -> None:
    """At each boundary, half-way between two levels, and at the floats on both sides of it."""
    for mu in (0.0, 1.0, 4.0, 255.0, 65536.0):
        fake = MuLawFakeQuantize(MuLawSpec(bits, mu, granularity=granularity, levels=levels, grid=grid))
        fake(torch.tensor([[0.7, -0.3, 0.011, 0.0], [0.0, 0.0, 0.0, 0.0], [1e-20, -3e-20, 2e-20, 0.0]]))
        fake.disable_observer()
        k = grid_levels(fake.spec)[: fake.spec.codes].float()
        halfway = (k[1:] + k[:-1]) / 2
        points = torch.cat((halfway, k, torch.tensor([0.0, -0.0, 1e30, -1e30, torch.inf, -torch.inf])))
        step = fake.quantize(torch.zeros(3, 4)).step
        exact = points * (step if granularity != "tensor" else step.expand(3, 1))
        sides = [exact, exact.nextafter(torch.tensor(torch.inf)), exact.nextafter(torch.tensor(-torch.inf))]
        weight = torch.cat(sides, dim=1)
        weight = torch.where(weight.isnan(), 0.0, weight)  # infinity times a step of zero
        assert torch.equal(bits_of(fake(weight)), bits_of(fake.quantize(weight).dequantize())), mu


@pytest.mark.filterwarnings("ignore:torch.searchsorted")  # of the slow way that serves as the oracle
@settings(deadline=None)
@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    axis=st.integers(0, 3),
    bits=st.integers(2, 8),
    granularity=st.sampled_from([*GRANULARITIES, "group:3"]),
    order=st.permutations(range(4)),
    seed=st.integers(0, 2**16),
)
def test_any_shape_and_layout_is_decoded_as_deployed(
    shape: list[int], axis: int, bits: int, granularity: str, order: list[int], seed: int
) -> None:
    order = [each for each in order if each < len(shape)]
    weight = torch.randn([shape[each] for each in order], generator=torch.Generator().manual_seed(seed))
    weight = weight.permute([order.index(each) for each in range(len(shape))])  # in any order of memory
    axis = min(axis, len(shape) - 1)
    fake = MuLawFakeQuantize(MuLawSpec(bits, 4.0, granularity=granularity), axis, AbsMaxObserver)
    fake.observe(weight)
    fake.disable_observer()
    decoded = fake(weight)
    assert torch.equal(bits_of(decoded), bits_of(fake.quantize(weight).dequantize()))
    assert decoded.stride() == torch.empty_like(weight).stride()


@pytest.mark.parametrize("kernel", [(32, 1, 3, 3), (8, 4, 3, 3), (8, 4, 1, 1)], ids=str)
def test_a_convolution_keeps_its_memory_format(kernel: tuple[int, ...]) -> None:
    weight = torch.randn(kernel).to(memory_format=torch.channels_last)
    images = torch.randn(2, kernel[1], 8, 8).to(memory_format=torch.channels_last)
    fake = prepared(weight)
    plain = torch.nn.functional.conv2d(images, weight)
    assert torch.nn.functional.conv2d(images, fake(weight)).stride() == plain.stride()


def test_a_weight_that_is_not_a_number_is_no_crash() -> None:
    weight = torch.randn(3, 8)
    fake = prepared(weight)
    weight[1, 2] = torch.nan
    assert torch.equal(fake(weight), fake.quantize(weight).dequantize())


def surrogate(weight: Any, scale: Any, mu: float, codes: Any, residual: Any, grid: bool) -> Any:
    """clip(w, -s, s) + s (L - r) in float64, codes and r = clip(w / s) held fixed; L on or off the grid."""
    y = (2.0 * codes - 7) / 7
    level = np.sign(y) * ((1 + mu) ** np.abs(y) - 1) / mu
    level = np.round(127 * level) / 127 if grid else level
    return np.clip(weight, -scale, scale) + scale * (level - residual)


@pytest.mark.parametrize("granularity", GRANULARITIES)
@pytest.mark.parametrize("axis", [0, 1, Channels((1,), 2)], ids=str)
def test_gradients_are_those_of_the_surrogate(axis: int | Channels, granularity: str) -> None:
    random = torch.Generator().manual_seed(3)
    weight = torch.randn(4, 6, generator=random).requires_grad_()
    upstream = torch.randn(4, 6, generator=random)
    fake = prepared(weight, granularity=granularity, channel_axis=axis)
    spec = fake.spec
    fake.log_mu.data.fill_(np.log(4.0))
    fake.log_scale.data -= 0.4  # so that some weights are clipped
    (fake(weight) * upstream).sum().backward()

    w, g = weight.detach().double().numpy(), upstream.double().numpy()
    codes = fake.quantize(weight).codes.numpy().astype(float)
    log_scale, mu = fake.log_scale.detach().double(), 4.0

    def wide(log: Tensor) -> Any:
        return spread(log.exp(), spec, (4, 6), Channels.of(axis)).expand(4, 6).numpy()

    base = wide(log_scale)
    residual = np.clip(w / base, -1, 1)
    clipped = np.abs(w) > base
    assert 0 < clipped.sum() < clipped.size

    def loss(w: Any = w, log: Tensor = log_scale, mu: float = mu, grid: bool = True) -> float:
        return float((g * surrogate(w, wide(log), mu, codes, residual, grid)).sum())

    h = 1e-6
    for index in np.ndindex(4, 6):
        shift = np.zeros((4, 6))
        shift[index] = h
        expected = (loss(w=w + shift) - loss(w=w - shift)) / (2 * h)
        assert weight.grad is not None
        assert weight.grad[index].item() == pytest.approx(expected, abs=1e-5)
    for place in range(log_scale.numel()):
        step = torch.zeros_like(log_scale)
        step.view(-1)[place] = h
        expected = (loss(log=log_scale + step) - loss(log=log_scale - step)) / (2 * h)
        assert fake.log_scale.grad is not None
        assert fake.log_scale.grad.view(-1)[place].item() == pytest.approx(expected, abs=1e-5)
    # rounded levels have no slope by mu, so there the surrogate's are off the grid
    expected = (loss(mu=mu * np.exp(h), grid=False) - loss(mu=mu * np.exp(-h), grid=False)) / (2 * h)
    assert fake.log_mu.grad is not None
    assert fake.log_mu.grad.item() == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_gradients_depend_on_neither_memory_order_nor_chunks(
    granularity: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    random = torch.Generator().manual_seed(4)
    plain, upstream = (torch.randn(6, 4, 3, 3, generator=random) for _ in range(2))
    found = []
    for weight, chunk in ((plain, 1000), (plain.to(memory_format=torch.channels_last), 40)):
        monkeypatch.setattr("muquant.format.rows.CHUNK", chunk)  # of 216 weights: all, or a row or more
        weight.requires_grad_()
        fake = prepared(weight.detach(), granularity=granularity)
        fake.log_scale.data -= 0.4  # so that some weights are clipped
        decoded = fake(weight)
        (decoded * upstream).sum().backward()
        found.append((decoded.detach(), weight.grad, fake.log_scale.grad, fake.log_mu.grad))
    torch.testing.assert_close(found[0], found[1])


def test_the_gradient_by_mu_of_a_large_weight_comes_from_a_sample(monkeypatch: pytest.MonkeyPatch) -> None:
    random = torch.Generator().manual_seed(5)
    rows = torch.randn(4, 1, 50, generator=random)
    weight = rows.expand(4, 6, 50).reshape(24, 50)  # every sixth row is one of each kind
    upstream = torch.randn(4, 1, 50, generator=random).expand(4, 6, 50).reshape(24, 50)
    fake = prepared(weight)
    found: list[float] = []
    for sample in (24 * 50, 4 * 50):
        monkeypatch.setattr("muquant.quantization.straight_through.SAMPLE", sample)
        fake.log_mu.grad = None
        (fake(weight) * upstream).sum().backward()
        assert fake.log_mu.grad is not None
        found.append(fake.log_mu.grad.item())
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert found[0] != 0


def test_the_switches_are_those_of_torch_ao() -> None:
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    fake = MuLawFakeQuantize()
    assert isinstance(fake, torch_ao.FakeQuantizeBase)
    fake.apply(torch_ao.disable_fake_quant)
    assert fake(weight) is weight
    seen = fake.scale.clone()
    fake.apply(torch_ao.disable_observer)
    fake(5 * weight)
    assert torch.equal(fake.scale, seen)
    fake.apply(torch_ao.enable_fake_quant)
    assert torch.equal(fake(weight), fake.quantize(weight).dequantize())
    fake.apply(torch_ao.enable_observer)
    fake(5 * weight)
    torch.testing.assert_close(fake.scale, 5 * seen)
    assert len(fake.calculate_qparams()) == 2


@pytest.mark.parametrize(
    "optimizer",
    [
        lambda p: torch.optim.SGD(p, lr=0.02, momentum=0.9, weight_decay=0.1),
        lambda p: torch.optim.Adam(p, lr=0.3, weight_decay=0.1),
        lambda p: torch.optim.AdamW(p, lr=0.3),
    ],
    ids=["sgd", "adam", "adamw"],
)
def test_scale_and_mu_stay_positive_and_zero_channels_zero(optimizer: Any) -> None:
    torch.manual_seed(0)
    weight = torch.nn.Parameter(torch.randn(4, 10))
    weight.data[2] = 0
    fake = prepared(weight)
    steps = optimizer([weight, *fake.parameters()])
    before = fake.scale.detach().clone()
    for _ in range(20):
        steps.zero_grad()
        (fake(weight) - 3).square().mean().backward()
        steps.step()
    decoded = fake(weight)
    assert torch.isfinite(decoded).all()
    assert (fake.scale[[0, 1, 3]] > 0).all()
    assert not torch.equal(fake.scale, before)
    assert fake.mu > 0
    assert (decoded[2] == 0).all()


@pytest.mark.parametrize("mu", ["auto", 0.0, 5.0])
def test_what_learns(mu: Any) -> None:
    weight = torch.randn(3, 8).requires_grad_()
    fake = prepared(weight, mu=mu)
    fake(weight).sum().backward()
    assert (fake.log_mu.grad is not None) == (mu == "auto")
    if mu != "auto":
        assert fake.mu == mu
    fixed = MuLawFakeQuantize(learn=False)
    assert not any(parameter.requires_grad for parameter in fixed.parameters())


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_its_state_goes_into_a_fresh_module(granularity: str) -> None:
    weight = torch.randn(3, 10, generator=torch.Generator().manual_seed(2))
    fake = prepared(weight, granularity=granularity)
    fresh = MuLawFakeQuantize(MuLawSpec(granularity=granularity))
    fresh.load_state_dict(fake.state_dict())
    assert torch.equal(fresh(weight), fake(weight))
    assert torch.equal(fresh.scale, fake.scale)


def test_half_precision_weights_keep_their_type() -> None:
    weight = torch.randn(3, 8).half().requires_grad_()
    fake = prepared(weight)
    decoded = fake(weight)
    assert decoded.dtype == torch.float16
    assert torch.equal(decoded, fake.quantize(weight).dequantize().half())
    decoded.sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float16


def test_the_mapped_domain_is_refused() -> None:
    with pytest.raises(InputError, match="mapped"):
        MuLawFakeQuantize(MuLawSpec(mu=255, domain="mapped"))
