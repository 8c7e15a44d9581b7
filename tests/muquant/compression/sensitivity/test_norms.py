import numpy as np
import pytest
import torch

from muquant import MuLawSpec
from muquant.compression.sensitivity import Norms, matrix_norms
from muquant.format.tensor import QuantizedTensor
from muquant.quantization.quality import weight_sqnr


@pytest.mark.parametrize("channel_axis", [0, 1])
@pytest.mark.parametrize("shape", [(6, 7), (700, 400)], ids=str)
def test_sqnr_is_its_formula(shape: tuple[int, int], channel_axis: int) -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=shape).astype(np.float32)
    codes = torch.from_numpy(random.integers(8, size=shape).astype(np.uint8))
    step = torch.from_numpy(random.uniform(1e-4, 1e-3, size=(shape[channel_axis], 1)).astype(np.float32))
    quantized = QuantizedTensor(MuLawSpec(3, 5.0), codes, step, channel_axis)
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


@pytest.mark.parametrize("shape", [(5, 9), (9, 5), (1, 1), (1, 6), (140, 300), (300, 140)], ids=str)
def test_matrix_norms_are_those_of_numpy(shape: tuple[int, int]) -> None:
    matrix = np.random.default_rng(1).normal(size=shape) ** 3
    found = matrix_norms(torch.from_numpy(matrix))
    assert found.one == pytest.approx(np.linalg.norm(matrix, 1), rel=1e-12)
    assert found.two == pytest.approx(np.linalg.norm(matrix, 2), rel=1e-12)
    assert found.inf == pytest.approx(np.linalg.norm(matrix, np.inf), rel=1e-12)
    turned = matrix_norms(torch.from_numpy(matrix).T)
    assert (turned.one, turned.inf) == (found.transposed().one, found.transposed().inf)


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_squaring_neither_overflows_nor_vanishes(scale: float) -> None:
    assert matrix_norms(torch.full((2, 2), scale)).two == pytest.approx(2 * scale)


def test_the_norms_of_nothing_are_zero() -> None:
    for nothing in (torch.zeros(3, 4), torch.zeros(200, 300), torch.empty(0, 4), torch.empty(4, 0)):
        assert matrix_norms(nothing) == Norms(0.0, 0.0, 0.0)
