import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays
from scipy.optimize import linprog
from torch import Tensor

from muquant.attacks.norms import Norm, project, random_start, size, sparse_signs, steepest

unit_images = arrays(np.float32, (3, 2, 5), elements=st.floats(0, 1, width=32))
any_images = arrays(np.float32, (3, 2, 5), elements=st.floats(-100, 100, width=32))
norms = st.sampled_from(["linf", "l2", "l1"])
radii = st.floats(0, 1)


ROUNDING = 16 * 2.0**-24
"""What float32 loses in a projection of values below 1: in a norm of 10, a quotient, a product, a sum."""


def distance(inputs: Tensor, clean: Tensor, norm: Norm) -> np.ndarray:
    difference = (inputs.double() - clean.double()).flatten(1).numpy()
    return np.asarray(np.linalg.norm(difference, ord={"linf": np.inf, "l2": 2, "l1": 1}[norm], axis=1))


@given(unit_images, any_images, radii, norms)
@settings(deadline=None)
def test_projection_is_in_the_ball_and_the_cube(
    clean: np.ndarray, inputs: np.ndarray, radius: float, norm: Norm
) -> None:
    centre = torch.from_numpy(clean)
    projected = project(torch.from_numpy(inputs), centre, radius, norm)
    assert projected.min() >= 0
    assert projected.max() <= 1
    assert distance(projected, centre, norm).max() <= radius + 1e-6


@given(unit_images, unit_images, radii, norms)
@settings(deadline=None)
def test_projection_is_idempotent_and_leaves_what_is_inside(
    clean: np.ndarray, inputs: np.ndarray, radius: float, norm: Norm
) -> None:
    centre, images = torch.from_numpy(clean), torch.from_numpy(inputs)
    once = project(images, centre, radius, norm)
    torch.testing.assert_close(project(once, centre, radius, norm), once, rtol=0, atol=ROUNDING)
    inner = torch.from_numpy(distance(images, centre, norm) <= radius)
    torch.testing.assert_close(once[inner], images[inner], rtol=0, atol=ROUNDING)


@given(unit_images, any_images, radii)
@settings(deadline=None)
def test_linf_projection_is_the_nearest_point(clean: np.ndarray, inputs: np.ndarray, radius: float) -> None:
    low, high = np.maximum(clean - np.float32(radius), 0), np.minimum(clean + np.float32(radius), 1)
    projected = project(torch.from_numpy(inputs), torch.from_numpy(clean), radius, "linf")
    np.testing.assert_allclose(projected.numpy(), np.clip(inputs, low, high), atol=1e-6)


@given(unit_images, radii, norms, st.integers(0, 1000))
@settings(deadline=None)
def test_random_start_is_in_the_ball(clean: np.ndarray, radius: float, norm: Norm, seed: int) -> None:
    centre = torch.from_numpy(clean)
    started = random_start(centre, radius, norm, torch.Generator().manual_seed(seed))
    assert distance(started, centre, norm).max() <= radius + 1e-6
    assert started.min() >= 0
    assert started.max() <= 1


def test_random_start_fills_the_l2_ball_evenly() -> None:
    """In four dimensions a sixteenth of the ball lies within half of its radius."""
    centre = torch.full((20_000, 4), 0.5)
    started = random_start(centre, 0.2, "l2", torch.Generator().manual_seed(0))
    share = (size(started - centre, "l2") < 0.1).float().mean()
    assert float(share) == pytest.approx(1 / 16, abs=0.006)


def furthest(direction: np.ndarray, centre: np.ndarray, radius: float) -> float:
    """The largest product of a direction with an offset in the L1 ball that leaves the cube nowhere."""
    program = linprog(
        np.concatenate([-direction, direction]),
        A_ub=np.ones((1, 2 * centre.size)),
        b_ub=[radius],
        bounds=[(0, float(room)) for room in (*(1 - centre), *centre)],
    )
    assert program.success
    return -float(program.fun)


@given(unit_images, arrays(np.float32, (3, 2, 5), elements=st.floats(-2, 3, width=32)), st.floats(0.1, 8))
@settings(deadline=None, max_examples=60)
def test_l1_projection_is_the_nearest_point(clean: np.ndarray, inputs: np.ndarray, radius: float) -> None:
    """What is left to the input is at a right angle to the set, or points out of it, by a linear program."""
    projected = project(torch.from_numpy(inputs), torch.from_numpy(clean), radius, "l1").double().numpy()
    for centre, point, found in zip(clean.astype(float), inputs.astype(float), projected, strict=True):
        rest = (point - found).ravel()
        reached = float(rest @ (found - centre).ravel())
        assert furthest(rest, centre.ravel(), radius) <= reached + 1e-4


def test_sparse_signs_are_those_of_the_largest_values() -> None:
    gradient = torch.tensor([[3.0, -1.0, 0.5, -4.0], [0.0, 0.0, 0.0, 0.0]])
    expected = torch.tensor([[0.5, 0.0, 0.0, -0.5], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(sparse_signs(gradient, torch.tensor([0.5, 0.5])), expected)
    torch.testing.assert_close(
        sparse_signs(gradient, torch.tensor([0.0, 1.0]))[0], torch.tensor([0, 0, 0, -1.0])
    )


@given(any_images, st.sampled_from(["linf", "l2"]))
@settings(deadline=None)
def test_steepest_direction_attains_the_dual_norm(gradient: np.ndarray, norm: Norm) -> None:
    tensor = torch.from_numpy(gradient)
    direction = steepest(tensor, norm)
    product = (direction.double() * tensor.double()).flatten(1).sum(1)
    dual = tensor.double().flatten(1).norm(p=1 if norm == "linf" else 2, dim=1)
    torch.testing.assert_close(product, dual, rtol=1e-4, atol=1e-8)
    assert size(direction, norm).max() <= 1 + 1e-5
