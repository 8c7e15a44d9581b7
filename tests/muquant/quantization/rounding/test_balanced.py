"""Rounding that keeps each channel's length and sum: what it says carried out plainly, and what it is for."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings, strategies as st
from torch import Tensor, nn

import muquant
from muquant import MuLawSpec
from muquant.format.channels import ROWS, Channels
from muquant.format.law import grid_levels
from muquant.format.rows import to_matrix
from muquant.format.steps import coded_steps
from muquant.format.tensor import QuantizedTensor
from muquant.quantization.observers import SearchObserver
from muquant.quantization.rounding import balanced, nearest

from ...conftest import reference_step


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)) + 0.2


def begun(weight: Tensor, spec: MuLawSpec, channels: Channels = ROWS) -> QuantizedTensor:
    observer = SearchObserver(spec, channels)
    observer(weight)
    scale, mu = observer.calculate_qparams()
    return nearest(weight, scale, spec.with_mu(float(mu)), channels)


def carried_out(weight: Any, start: QuantizedTensor, granularity: str) -> tuple[Any, Any]:
    """Codes and steps [rows, inputs] of a matrix, by going through its weights one at a time."""
    levels = grid_levels(start.spec)[: start.spec.codes].double().numpy()
    steps = reference_step(start.step.double().numpy(), granularity, weight.shape, 0).astype(np.float64)
    codes = start.codes.numpy().astype(int)
    for _ in range(2):
        for step in np.unique(steps):
            own = steps == step
            steps = np.where(own, (weight[own] ** 2).sum() / (weight[own] * levels[codes[own]]).sum(), steps)
        last, codes = codes, np.abs(weight[:, :, None] - levels * steps[:, :, None]).argmin(2)
    codes = last
    for row, step, own in zip(weight, steps, codes, strict=True):
        total = (row - levels[own] * step).sum()
        side = int(np.sign(total))
        offers = []
        for place, code in enumerate(own):
            if 0 <= code + side < len(levels):
                way = abs(levels[code + side] - levels[code]) * step[place]
                before, after = (row[place] - levels[c] * step[place] for c in (code, code + side))
                offers.append(((after**2 - before**2) / way, place, way))
        left = abs(total)
        for _, place, way in sorted(offers):
            if abs(left - way) >= left:
                break
            left -= way
            own[place] += side
    return codes, steps


@pytest.mark.parametrize("levels", ["mid-rise", "mid-tread"])
@pytest.mark.parametrize("granularity", ["channel", "group:7", "tensor"])
@pytest.mark.parametrize("bits", [2, 3, 5])
def test_it_is_what_it_says(bits: int, granularity: str, levels: Any) -> None:
    weight = numbers(bits, 5, 20)
    start = begun(weight, MuLawSpec(bits, granularity=granularity, levels=levels))
    found = balanced(weight, start)
    codes, steps = carried_out(weight.double().numpy(), start, granularity)
    np.testing.assert_array_equal(found.codes.numpy(), codes)
    own = reference_step(found.step.numpy(), granularity, (5, 20), 0)
    np.testing.assert_allclose(own, steps, rtol=1e-5)


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**20),
    shape=st.sampled_from([(3, 40), (40, 3), (6, 4, 3, 3), (1, 1), (8, 1)]),
    channels=st.sampled_from([ROWS, Channels((1,))]),
    spec=st.sampled_from(
        [MuLawSpec(), MuLawSpec(2, 0.0), MuLawSpec(4, levels="mid-tread"), MuLawSpec(3, grid="int4")]
    ),
    zeros=st.booleans(),
)
@example(seed=0, shape=(3, 40), channels=ROWS, spec=MuLawSpec(8), zeros=True)
def test_the_sum_of_each_channel_is_as_near_as_one_move_brings_it(
    seed: int, shape: tuple[int, ...], channels: Channels, spec: MuLawSpec, zeros: bool
) -> None:
    weight = numbers(seed, *shape)
    if zeros:
        weight[0] = 0
    found = balanced(weight, begun(weight, spec, channels))
    k = grid_levels(found.spec)[: found.spec.codes].float()
    lost = to_matrix(weight - found.dequantize(), channels).sum(1)
    codes, step = to_matrix(found.codes, channels).int(), found.step
    for side in (1, -1):
        moved = k[(codes + side).clamp(0, found.spec.codes - 1)]
        way = ((moved - k[codes]).abs() * step).amax(1)
        stuck = way == 0  # all weights are at the end already
        assert ((lost * side <= way / 2 + 1e-4) | stuck).all()
    if zeros and channels == ROWS:
        assert not found.dequantize()[0].any()


def test_steps_of_8_bits_stay_so_and_length_is_kept_on_average() -> None:
    weight = numbers(3, 200, 60)
    found = balanced(weight, begun(weight, MuLawSpec()))
    assert coded_steps(found.step.numpy()) is not None
    ratio = (weight * found.dequantize()).sum(1) / weight.square().sum(1)
    assert ratio.sub(1).abs().max() < 0.1
    assert ratio.mean().sub(1).abs() < 0.015  # 0.03 of least squared error


def test_the_mapped_domain_is_left_alone() -> None:
    weight = numbers(1, 4, 30)
    start = nearest(weight, weight.abs().amax(1, keepdim=True), MuLawSpec(3, 255.0, domain="mapped"), ROWS)
    assert balanced(weight, start) is start


def test_a_deep_network_keeps_its_gain() -> None:
    torch.manual_seed(0)
    layers = [layer for _ in range(10) for layer in (nn.Linear(96, 96, bias=False), nn.ReLU())]
    for layer in layers[::2]:
        nn.init.kaiming_normal_(layer.weight)  # type: ignore[arg-type]
    model, x = nn.Sequential(*layers[:-1]), torch.rand(256, 96)
    with torch.no_grad():
        exact = model(x)
        plain, found = (
            muquant.compress(model, flat=True, rounding=rounding, check=False).module(x)
            for rounding in ("nearest", None)
        )
    power = exact.square().sum()
    assert (exact * plain).sum() / power < 0.85
    assert abs((exact * found).sum() / power - 1) < 0.12


def test_positive_inputs_leave_next_to_no_mean_error() -> None:
    weight, mean = numbers(4, 32, 200), numbers(5, 4000, 200).relu().mean(0)
    start = begun(weight, MuLawSpec(), ROWS)
    plain, found = ((weight - each.dequantize()) @ mean for each in (start, balanced(weight, start)))
    assert found.square().sum() < 0.1 * plain.square().sum()
