import numpy as np
import pytest
import torch

from muquant import MuLawSpec, QuantizedTensor
from muquant.format.channels import Channels
from muquant.quantization.quality import ALL_LOST, decibels, weight_sqnr


@pytest.mark.parametrize("channel_axis", [0, 1])
@pytest.mark.parametrize("shape", [(6, 7), (700, 400)], ids=str)
def test_sqnr_is_its_formula(shape: tuple[int, int], channel_axis: int) -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=shape).astype(np.float32)
    codes = torch.from_numpy(random.integers(8, size=shape).astype(np.uint8))
    step = torch.from_numpy(random.uniform(1e-4, 1e-3, size=(shape[channel_axis], 1)).astype(np.float32))
    quantized = QuantizedTensor(MuLawSpec(3, 5.0), codes, step, Channels((channel_axis,)))
    noise = quantized.dequantize().numpy().astype(float) - weight
    expected = 10 * np.log10((weight.astype(float) ** 2).sum() / (noise**2).sum())
    assert weight_sqnr(torch.from_numpy(weight), quantized) == pytest.approx(expected, abs=1e-5)


def test_where_nothing_is_lost_or_there_is_nothing_it_is_none() -> None:
    codes = torch.tensor([[0, 7, 3]], dtype=torch.uint8)
    quantized = QuantizedTensor(MuLawSpec(3, 5.0), codes, torch.ones(1, 1))
    assert weight_sqnr(quantized.dequantize(), quantized) is None
    assert weight_sqnr(torch.zeros(1, 3), quantized) is None
    empty = QuantizedTensor(MuLawSpec(3, 5.0), codes[:, :0], torch.ones(1, 1))
    assert weight_sqnr(torch.zeros(1, 0), empty) is None


def test_what_is_no_number_is_not_lossless() -> None:
    nan, inf = float("nan"), float("inf")
    for signal, noise in ((1, nan), (nan, 0), (nan, nan), (inf, 1), (inf, inf), (1, inf), (0, nan)):
        assert decibels(signal, noise) == ALL_LOST
    assert decibels(1, 0) == decibels(0, 1) == inf
    assert decibels(100, 1) == 20
