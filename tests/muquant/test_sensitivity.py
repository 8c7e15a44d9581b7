import math

import numpy as np
import pytest
import torch

from muquant.sensitivity import spectral_norm, sqnr


def test_sqnr_is_its_formula() -> None:
    random = np.random.default_rng(0)
    weight = random.normal(size=(6, 7)).astype(np.float32)
    noisy = weight + random.normal(size=(6, 7)).astype(np.float32) * np.float32(0.01)
    signal, noise = weight.astype(float), weight.astype(float) - noisy.astype(float)
    expected = 10 * np.log10((signal**2).sum() / (noise**2).sum())
    assert sqnr(torch.from_numpy(weight), torch.from_numpy(noisy)) == pytest.approx(expected, rel=1e-12)


def test_sqnr_of_simple_pairs() -> None:
    one = torch.ones(4)
    assert sqnr(one, 0.9 * one) == pytest.approx(20, abs=1e-5)
    assert sqnr(one, one) == math.inf
    assert sqnr(torch.zeros(4), one) == -math.inf


SHAPES = [(5, 9), (9, 5), (4, 4), (7,), (3, 4, 2, 2), (1, 1), (140, 300)]


@pytest.mark.parametrize(
    ("shape", "axis"), [(shape, axis) for shape in SHAPES for axis in range(min(2, len(shape)))], ids=str
)
def test_the_spectral_norm_is_the_largest_singular_value(shape: tuple[int, ...], axis: int) -> None:
    delta = np.random.default_rng(1).normal(size=shape)
    matrix = np.moveaxis(delta, axis, 0).reshape(shape[axis], -1)
    expected = np.linalg.norm(matrix, ord=2)
    assert spectral_norm(torch.from_numpy(delta), axis) == pytest.approx(expected, rel=1e-12)


def test_the_spectral_norm_of_nothing_is_zero() -> None:
    assert spectral_norm(torch.zeros(3, 4)) == 0
    assert spectral_norm(torch.empty(0, 4)) == 0
