"""The smallest step onto a hyperplane inside the cube, against linear and quadratic programs."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from scipy.optimize import linprog, minimize

from muquant.attacks import Norm
from muquant.attacks.fab import to_boundary

Array = NDArray[np.float64]
SIDE = 5

points = arrays(np.float64, SIDE, elements=st.integers(0, 8).map(lambda value: value / 8))
slopes = arrays(np.float64, SIDE, elements=st.integers(-8, 8).map(lambda value: value / 4))


def step(point: Array, value: float, slope: Array, norm: Norm) -> Array:
    place, height, normal = (torch.tensor(each)[None].float() for each in (point, value, slope))
    return np.asarray(to_boundary(place, height, normal, norm)[0].double().numpy())


def smallest(point: Array, value: float, slope: Array, norm: str) -> float:
    """The norm of the smallest step, as a solver finds it."""
    if norm == "l1":  # least sum of what goes up and what goes down
        ways = [(0, room) for room in (*(1 - point), *point)]
        program = linprog(np.ones(2 * SIDE), A_eq=[[*slope, *-slope]], b_eq=[-value], bounds=ways)
        assert program.success
        return float(program.fun)
    if norm == "linf":  # least t with -t <= d <= t, slope d = -value
        signs = np.vstack([np.eye(SIDE), -np.eye(SIDE)])
        program = linprog(
            [*[0.0] * SIDE, 1.0],
            A_ub=np.hstack([signs, -np.ones((2 * SIDE, 1))]),
            b_ub=np.zeros(2 * SIDE),
            A_eq=[[*slope, 0.0]],
            b_eq=[-value],
            bounds=[*zip(-point, 1 - point, strict=True), (0, None)],
        )
        assert program.success
        return float(program.fun)
    found = minimize(
        lambda d: d @ d,
        np.zeros(SIDE),
        jac=lambda d: 2 * d,
        method="SLSQP",
        bounds=list(zip(-point, 1 - point, strict=True)),
        constraints={"type": "eq", "fun": lambda d: slope @ d + value, "jac": lambda d: slope},
        options={"ftol": 1e-12, "maxiter": 500},
    )
    assert found.success
    return float(np.linalg.norm(found.x))


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@given(points, st.floats(-6, 6), slopes)
@settings(deadline=None, max_examples=150)
def test_the_step_is_the_smallest(norm: Norm, point: Array, value: float, slope: Array) -> None:
    reach = np.abs(slope) @ np.where(np.sign(slope) * (value if value else 1.0) > 0, point, 1 - point)
    assume(abs(value) < 0.999 * reach)
    taken = step(point, value, slope, norm)
    assert abs(slope @ taken + value) < 1e-5
    assert np.abs(np.clip(point + taken, 0, 1) - point - taken).max() < 1e-6
    length = np.linalg.norm(taken, ord={"linf": np.inf, "l2": 2, "l1": 1}[norm])
    assert length == pytest.approx(smallest(point, value, slope, norm), abs=2e-5)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
@given(points, st.floats(-6, 6), slopes)
@settings(deadline=None, max_examples=100)
def test_where_the_boundary_is_out_of_reach_it_goes_as_far_as_it_can(
    norm: Norm, point: Array, value: float, slope: Array
) -> None:
    towards = -np.sign(slope) * (1 if value >= 0 else -1)
    furthest = np.where(towards > 0, 1 - point, np.where(towards < 0, -point, 0))
    assume(abs(value) > 1.001 * abs(slope @ furthest))
    np.testing.assert_allclose(step(point, value, slope, norm), furthest, atol=1e-6)
