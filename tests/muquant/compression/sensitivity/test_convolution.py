import copy
import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from numpy.typing import NDArray
from torch import nn

from muquant.compression.sensitivity import Norms, convolution_norms, matrix_norms
from muquant.compression.sensitivity.convolution import largest_singular_value


def dense(module: nn.Module, shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The matrix of a convolution, column by column: what it makes of each unit vector."""
    bare: Any = copy.deepcopy(module).double()
    bare.bias = None
    size = math.prod(shape)
    with torch.no_grad():
        columns = bare(torch.eye(size, dtype=torch.float64).reshape(size, *shape))
    matrix: NDArray[np.float64] = columns.reshape(size, -1).T.numpy()
    return matrix


def norms(module: Any, shape: tuple[int, ...]) -> Norms:
    return convolution_norms(module, module.weight, shape)


def check(module: nn.Module, shape: tuple[int, ...], shortfall: float = 0.01) -> None:
    matrix, found = dense(module, shape), norms(module, shape)
    np.testing.assert_allclose(found.one, np.linalg.norm(matrix, 1), rtol=1e-12)
    np.testing.assert_allclose(found.inf, np.linalg.norm(matrix, np.inf), rtol=1e-12)
    two = np.linalg.norm(matrix, 2)
    assert (1 - shortfall) * two <= found.two <= (1 + 1e-5) * two


CASES: dict[str, tuple[Any, tuple[int, ...]]] = {
    "plain": (lambda: nn.Conv2d(3, 4, 3), (3, 6, 7)),
    "padded": (lambda: nn.Conv2d(3, 4, 3, padding=1), (3, 6, 7)),
    "strided": (lambda: nn.Conv2d(3, 4, 3, stride=2, padding=1), (3, 7, 8)),
    "stride beyond the kernel": (lambda: nn.Conv2d(2, 3, 2, stride=3), (2, 8, 8)),
    "dilated": (lambda: nn.Conv2d(2, 3, 3, dilation=2, padding=2), (2, 7, 7)),
    "groups": (lambda: nn.Conv2d(4, 6, 3, groups=2, padding=1), (4, 5, 5)),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4, padding=1), (4, 5, 5)),
    "all different by axis": (
        lambda: nn.Conv2d(2, 3, (2, 3), stride=(2, 1), padding=(0, 2), dilation=(1, 2)),
        (2, 5, 6),
    ),
    "same": (lambda: nn.Conv2d(2, 3, 3, padding="same", dilation=2), (2, 5, 5)),
    "without bias": (lambda: nn.Conv2d(2, 3, 3, bias=False), (2, 4, 4)),
    "one pixel": (lambda: nn.Conv2d(3, 4, 3, padding=1), (3, 1, 1)),
    "one by one": (lambda: nn.Conv2d(5, 4, 1), (5, 3, 3)),
    "1d": (lambda: nn.Conv1d(3, 4, 5, padding=2), (3, 11)),
    "3d": (lambda: nn.Conv3d(2, 3, 2, stride=2, padding=1), (2, 3, 4, 3)),
    "circular": (lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="circular"), (2, 3, 4)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 2, 3), (3, 4, 4)),
    "transposed, strided": (
        lambda: nn.ConvTranspose2d(3, 2, 3, stride=2, padding=1, output_padding=1),
        (3, 4, 4),
    ),
    "transposed, groups": (lambda: nn.ConvTranspose2d(4, 6, 2, groups=2, dilation=2), (4, 3, 4)),
    "transposed, 1d": (lambda: nn.ConvTranspose1d(3, 2, 4, stride=3, padding=1), (3, 6)),
    "transposed, 3d": (lambda: nn.ConvTranspose3d(2, 2, 2, stride=2), (2, 2, 3, 2)),
}


@pytest.mark.parametrize(("build", "shape"), CASES.values(), ids=CASES.keys())
def test_norms_are_those_of_the_dense_matrix(build: Any, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    check(build(), shape)


@given(
    transposed=st.booleans(),
    groups=st.integers(1, 2),
    channels=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    kernel=st.integers(1, 4),
    stride=st.integers(1, 3),
    padding=st.integers(0, 3),
    dilation=st.integers(1, 2),
    size=st.tuples(st.integers(1, 7), st.integers(1, 7)),
    signs=st.booleans(),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=100, deadline=None, derandomize=True)
def test_norms_of_any_convolution(
    transposed: bool,
    groups: int,
    channels: tuple[int, int],
    kernel: int,
    stride: int,
    padding: int,
    dilation: int,
    size: tuple[int, int],
    signs: bool,
    seed: int,
) -> None:
    reach = dilation * (kernel - 1)
    outputs = [
        (each - 1) * stride - 2 * padding + reach + 1 if transposed else each + 2 * padding - reach
        for each in size
    ]
    assume(min(outputs) > 0)
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    inputs = groups * channels[0]
    module = kind(inputs, groups * channels[1], kernel, stride, padding, groups=groups, dilation=dilation)
    weight = torch.randn(module.weight.shape, generator=torch.Generator().manual_seed(seed))
    module.weight.data = weight.sign() if signs else weight**3
    check(module, (inputs, *size), shortfall=0.02)


OPPOSITE = {
    "reflect": (1.0, -2.0, 0.0, 2.0, -1.0),
    "replicate": (1.0, -2.0, 0.0, 2.0, -1.0),
    "circular": (1.0, -1.0, 1.0, -1.0, 1.0),
}
"""Padding mode -> kernel in which taps that meet in one element of a short input are opposite."""


@pytest.mark.parametrize("mode", OPPOSITE)
@pytest.mark.parametrize("size", [3, 6])
def test_where_padding_repeats_the_input_the_sums_are_bounds(mode: Any, size: int) -> None:
    module = nn.Conv1d(2, 3, 5, padding=2, padding_mode=mode)
    module.weight.data = torch.tensor(OPPOSITE[mode]).expand(3, 2, 5)
    matrix, found = dense(module, (2, size)), norms(module, (2, size))
    one, two, inf = (np.linalg.norm(matrix, p) for p in (1, 2, np.inf))
    assert found.one >= one * (1 - 1e-12)
    assert found.inf >= inf * (1 - 1e-12)
    assert 0.99 * two <= found.two <= (1 + 1e-5) * two
    inside = size >= 5  # the kernel fits: an output without padding, no element met twice by "circular"
    assert (found.inf == pytest.approx(inf, rel=1e-12)) == inside
    assert (found.one == pytest.approx(one, rel=1e-12)) == (inside and mode == "circular")


def test_known_answers() -> None:
    identity = nn.Conv2d(3, 3, 3, padding=1, groups=3)
    nn.init.zeros_(identity.weight)
    identity.weight.data[:, :, 1, 1] = -2.5
    assert norms(identity, (3, 5, 5)) == Norms(2.5, pytest.approx(2.5), 2.5)  # type: ignore[arg-type]
    ones = nn.Conv1d(1, 1, 2)  # x_i + x_(i+1): bidiagonal, largest singular value 2 cos(pi / 2n)
    nn.init.ones_(ones.weight)
    assert norms(ones, (1, 9)).two == pytest.approx(2 * math.cos(math.pi / 18), rel=1e-2)
    assert (norms(ones, (1, 9)).one, norms(ones, (1, 9)).inf) == (2, 2)
    assert (norms(ones, (1, 2)).one, norms(ones, (1, 2)).inf) == (1, 2)


def test_the_reshaped_matrix_is_a_lower_bound_and_an_interior_row_the_largest() -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(3, 8, 3, padding=1)
    found, matrix = norms(module, (3, 9, 9)), matrix_norms(module.weight.detach().flatten(1))
    assert matrix.two <= found.two <= 3 * matrix.two
    assert found.inf == pytest.approx(matrix.inf, rel=1e-12)


def test_a_larger_convolution_is_found_to_the_tolerance_that_is_stated() -> None:
    torch.manual_seed(0)
    module = nn.Conv2d(8, 12, 3, stride=2, padding=1)
    check(module, (8, 14, 14), shortfall=0.005)


def test_a_singular_value_that_hides_behind_many_equal_ones_is_found() -> None:
    singular = torch.ones(2000)
    singular[17] = 1.05  # a random start has little of its vector, so that one step looks nearly done
    start = torch.randn(2000, generator=torch.Generator().manual_seed(0))
    assert largest_singular_value(lambda x: x * singular**2, start) == pytest.approx(1.05, rel=1e-5)


def test_a_map_of_zeros_and_one_of_a_single_input_have_a_singular_value_too() -> None:
    assert largest_singular_value(torch.zeros_like, torch.ones(5)) == 0
    assert largest_singular_value(lambda x: 9 * x, torch.tensor([-0.5])) == pytest.approx(3)


def test_the_norms_of_a_zero_weight_are_zero_and_nothing_is_changed() -> None:
    module = nn.Conv2d(2, 3, 3)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert convolution_norms(module, torch.zeros_like(module.weight), (2, 4, 4)) == Norms(0.0, 0.0, 0.0)
    norms(module, (2, 4, 4))
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())
