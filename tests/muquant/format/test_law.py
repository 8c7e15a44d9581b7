import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st

from muquant import MuLawSpec
from muquant.format.law import compand, expand, expand_slope, grid_levels, positions

MUS = [0.0, 1e-12, 1e-6, 1e-3, 0.1, 1.0, 5.0, 16.0, 64.0, 255.0, 4096.0, 65536.0]
X = torch.linspace(-1, 1, 2001, dtype=torch.float64)


@pytest.mark.parametrize("mu", MUS)
def test_the_law_is_its_formula(mu: float) -> None:
    x = X.numpy()
    if mu == 0:
        expected = x
    else:  # longdouble, since ln(1 + mu |x|) loses digits of a small mu
        wide = np.longdouble(mu)
        expected = np.sign(x) * np.log1p(wide * np.abs(x)) / np.log1p(wide)
    np.testing.assert_allclose(compand(X, mu).numpy(), expected.astype(np.float64), rtol=1e-14, atol=0)


@pytest.mark.parametrize("mu", MUS)
def test_expansion_inverts_the_law(mu: float) -> None:
    torch.testing.assert_close(expand(compand(X, mu), mu), X, rtol=1e-12, atol=1e-15)
    torch.testing.assert_close(compand(expand(X, mu), mu), X, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("function", [compand, expand])
@pytest.mark.parametrize("mu", MUS)
def test_both_are_odd_and_rise_from_end_to_end(mu: float, function: Any) -> None:
    y = function(X, mu)
    torch.testing.assert_close(function(-X, mu), -y, rtol=0, atol=0)
    assert (y.diff() > 0).all()
    assert function(torch.tensor([-1.0, 0.0, 1.0]).double(), mu).tolist() == pytest.approx(
        [-1, 0, 1], abs=1e-15
    )


@pytest.mark.parametrize("function", [compand, expand])
def test_mu_zero_is_the_limit_of_small_mu(function: Any) -> None:
    torch.testing.assert_close(function(X, 1e-10), function(X, 0.0), rtol=0, atol=1e-10)
    assert function(X, 0.0) is X


def test_values_known_by_hand() -> None:
    half = torch.tensor([0.5], dtype=torch.float64)
    assert compand(half, 255.0).item() == pytest.approx(math.log(128.5) / math.log(256))
    assert expand(half, 255.0).item() == pytest.approx(15 / 255)  # (256^(1/2) - 1) / 255
    assert expand(half, 3.0).item() == pytest.approx(1 / 3)  # (4^(1/2) - 1) / 3


@pytest.mark.parametrize("mu", [0.0, 1e-6, 9e-5, 1.1e-4, 1e-3, 0.1, 1.0, 16.0, 255.0, 65536.0])
def test_the_slope_is_the_finite_difference(mu: float) -> None:
    # the power in longdouble, so that a difference over so small a mu keeps its digits
    y = X.numpy().astype(np.longdouble)

    def formula(m: np.longdouble) -> Any:
        return np.sign(y) * np.expm1(np.abs(y) * np.log1p(m)) / m

    h = np.longdouble(max(mu, 1e-3) * 1e-4)
    centre = np.longdouble(max(mu, float(2 * h)))
    expected = (formula(centre + h) - formula(centre - h)) / (2 * h)
    np.testing.assert_allclose(expand_slope(X, mu).numpy(), expected.astype(float), rtol=1e-3, atol=1e-8)


@pytest.mark.parametrize("mu", [0.0, 1e-5, 1.0, 255.0])
def test_the_slope_is_zero_where_the_curves_meet(mu: float) -> None:
    ends = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    torch.testing.assert_close(
        expand_slope(ends, mu), torch.zeros(3, dtype=torch.float64), rtol=0, atol=1e-15
    )


GOLDEN = [  # computed by hand from round(grid_max ((1 + mu)^|y| - 1) / mu)
    (3, 0.0, "mid-rise", [-126, -90, -54, -18, 18, 54, 90, 126]),
    (3, 255.0, "mid-rise", [-127, -26, -5, -1, 1, 5, 26, 127]),
    (3, 0.0, "mid-tread", [-126, -84, -42, 0, 42, 84, 126, 0]),
    (2, 3.0, "mid-rise", [-127, -25, 25, 127]),
    (2, 255.0, "mid-tread", [-127, 0, 127, 0]),
    (4, 0.0, "mid-rise", [-120, -104, -88, -72, -56, -40, -24, -8, 8, 24, 40, 56, 72, 88, 104, 120]),
    (
        3,
        7.0,
        "mid-tread",
        [-127, -54, -18, 0, 18, 54, 127, 0],
    ),  # 8^(1/3) = 2: 127 (2 - 1) / 7, 127 (4 - 1) / 7
]


INT4_GOLDEN = [  # by hand: 15 or 7 times the level, to the nearest odd integer or the nearest integer
    (3, 0.0, "mid-rise", [-7, -5, -3, -1, 1, 3, 5, 7]),
    (2, 0.0, "mid-rise", [-15, -5, 5, 15]),
    (4, 0.0, "mid-rise", list(range(-15, 16, 2))),
    (3, 1e-9, "mid-rise", [-15, -11, -7, -3, 3, 7, 11, 15]),
    (3, 255.0, "mid-rise", [-15, -3, -1, -1, 1, 1, 3, 15]),  # 3.06, 0.57, 0.07
    (2, 3.0, "mid-rise", [-15, -3, 3, 15]),  # 15 (4^(1/3) - 1) / 3 = 2.94
    (3, 0.0, "mid-tread", [-6, -4, -2, 0, 2, 4, 6, 0]),
    (3, 7.0, "mid-tread", [-7, -3, -1, 0, 1, 3, 7, 0]),  # 8^(1/3) = 2: 7 (2 - 1) / 7, 7 (4 - 1) / 7
    (2, 255.0, "mid-tread", [-7, 0, 7, 0]),
    (4, 0.0, "mid-tread", [*range(-7, 8), 0]),
]


@pytest.mark.parametrize(("bits", "mu", "levels", "expected"), INT4_GOLDEN)
def test_golden_codebooks_on_the_int4_grid(bits: int, mu: float, levels: Any, expected: list[int]) -> None:
    assert grid_levels(MuLawSpec(bits, mu, levels=levels, grid="int4")).tolist() == expected


@pytest.mark.parametrize(("bits", "mu", "levels", "expected"), GOLDEN)
def test_golden_codebooks(bits: int, mu: float, levels: Any, expected: list[int]) -> None:
    assert grid_levels(MuLawSpec(bits, mu, levels=levels)).tolist() == expected


def codebook(bits: int, mu: float, levels: str, grid: str) -> list[int]:
    """The format written out in float64 and Python's own round (half to even)."""
    if grid == "int4":
        return int4_codebook(bits, mu, levels)
    largest = 127 if grid == "int8" or (grid == "auto" and bits <= 6) else 32767
    if levels == "mid-rise":
        n = 2**bits - 1
        y = [np.float64(2 * i - n) / n for i in range(2**bits)]
    else:
        n = 2 ** (bits - 1) - 1
        y = [np.float64(i - n) / n for i in range(2 * n + 1)] + [np.float64(0)]
    if mu == 0:
        top = largest - largest % n if n <= largest else largest
        return [round(top * float(each)) for each in y]
    return [round(largest * float(np.sign(each) * np.expm1(abs(each) * np.log1p(mu)) / mu)) for each in y]


def int4_codebook(bits: int, mu: float, levels: str) -> list[int]:
    """The nearest of the odd integers to 15, of two alike the outer one; for mid-tread of those to 7.

    Uniform levels are those of the largest integer of the grid that has all of them on it.
    """
    rise = levels == "mid-rise"
    grid = range(-15, 16, 2) if rise else range(-7, 8)
    n = 2**bits - 1 if rise else 2**bits - 2
    numerators = range(-n, n + 1, 2)  # of y = i / n
    if mu == 0:
        tops = [top for top in grid if top > 0]
        on_grid = [top for top in tops if all(top * i % n == 0 and top * i // n in grid for i in numerators)]
        found = [max(on_grid) * i // n for i in numerators]
    else:
        found = []
        for i in numerators:
            exact = grid[-1] * math.copysign(np.expm1(abs(i) / n * np.log1p(mu)) / mu, i)
            distances = [abs(k - exact) for k in grid]
            found.append(max((k for k in grid if abs(k - exact) == min(distances)), key=abs))
    return found if rise else [*found, 0]


def check_codebook(bits: int, mu: float, levels: Any, grid: Any) -> None:
    spec = MuLawSpec(bits, mu, levels=levels, grid=grid)
    found = grid_levels(spec).tolist()
    assert found == codebook(bits, mu, levels, grid)
    written = found[: spec.codes]
    assert written == sorted(written)
    assert written == [-level for level in reversed(written)]


@pytest.mark.parametrize("grid", ["auto", "int8", "int16"])
@pytest.mark.parametrize("levels", ["mid-rise", "mid-tread"])
@pytest.mark.parametrize("bits", range(2, 9))
def test_every_codebook_is_the_formula(bits: int, levels: str, grid: str) -> None:
    for mu in (0.0, 0.01, *np.geomspace(0.05, 65536, 60).tolist()):
        check_codebook(bits, mu, levels, grid)


@pytest.mark.parametrize("levels", ["mid-rise", "mid-tread"])
@pytest.mark.parametrize("bits", [2, 3, 4])
def test_every_codebook_on_the_int4_grid_is_the_nearest(bits: int, levels: str) -> None:
    for mu in (0.0, 1e-12, 1e-6, 0.01, *np.geomspace(0.05, 65536, 400).tolist()):
        check_codebook(bits, mu, levels, "int4")


@settings(deadline=None)
@given(st.integers(2, 4), st.just(0.0) | st.floats(1e-300, 65536), st.sampled_from(["mid-rise", "mid-tread"]))
def test_any_codebook_on_the_int4_grid_is_what_four_bits_hold(bits: int, mu: float, levels: Any) -> None:
    check_codebook(bits, mu, levels, "int4")
    k = grid_levels(MuLawSpec(bits, mu, levels=levels, grid="int4"))
    places = (k - 1) // 2 if levels == "mid-rise" else k
    assert -8 <= places.min() <= places.max() <= 7
    if levels == "mid-rise":
        assert (k % 2 == 1).all()


@settings(deadline=None)  # the first call starts torch up
@given(st.integers(2, 6), st.just(0.0) | st.floats(1e-300, 65536), st.sampled_from(["mid-rise", "mid-tread"]))
def test_any_codebook_is_the_formula(bits: int, mu: float, levels: str) -> None:
    check_codebook(bits, mu, levels, "auto")


@pytest.mark.parametrize("bits", range(2, 9))
def test_positions_span_minus_one_to_one(bits: int) -> None:
    rise = positions(MuLawSpec(bits, 1.0)).numpy()
    np.testing.assert_allclose(rise, np.linspace(-1, 1, 2**bits), rtol=0, atol=1e-15)
    tread = positions(MuLawSpec(bits, 1.0, levels="mid-tread")).numpy()
    np.testing.assert_allclose(tread, [*np.linspace(-1, 1, 2**bits - 1), 0], rtol=0, atol=1e-15)
