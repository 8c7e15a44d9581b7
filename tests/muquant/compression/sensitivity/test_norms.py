import numpy as np
import pytest
import torch

from muquant.compression.sensitivity import Norms, matrix_norms


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
