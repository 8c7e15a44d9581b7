"""The search alone, on rays whose changes are made up and so known."""

import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor

from muquant.training.feedback.brackets import Brackets

SHAPES = ("straight", "concave", "steep", "flat", "sign", "cliff", "jagged")


class Rays:
    """Rays whose label changes at the steps `at` [rows, rays]: once, for good. Counts what it is asked."""

    def __init__(self, at: Tensor, shape: str) -> None:
        self.at, self.shape, self.asked = at, shape, torch.zeros_like(at)

    def __call__(self, rows: Tensor, rays: Tensor, steps: Tensor) -> Tensor:
        assert bool((steps >= 1).all())
        assert len({*zip(rows.tolist(), rays.tolist(), strict=True)}) == len(rows)
        self.asked[rows, rays] += 1
        distance = self.at[rows, rays] - 0.5 - steps
        return {
            "straight": distance,
            "concave": (distance / 1000) * (1 + steps / 1000),
            "steep": distance**3,
            "flat": distance.sign() * distance.abs() ** 0.2,
            "sign": distance.sign(),
            "cliff": torch.where(distance > 0, 1e-6, -10.0),
            "jagged": distance.sign() * (0.01 + ((steps * 7919 + rays * 104729) % 13).float()),
        }[self.shape].float()


def search(gap: Rays, keep: int, steps: int, start: Tensor | None = None) -> Brackets:
    rows, rays = gap.at.shape
    brackets = Brackets(gap, torch.ones(rows) if start is None else start, rays, steps)
    brackets.find_nearest(keep)
    return brackets


@st.composite
def cases(draw: st.DrawFn) -> tuple[Tensor, int, int]:
    rows, rays, steps = draw(st.integers(1, 3)), draw(st.integers(1, 40)), 2 ** draw(st.integers(1, 10))
    middle = draw(st.integers(1, steps + 1))
    width = draw(st.integers(0, steps))
    places = st.integers(max(1, middle - width), min(steps + 1, middle + width))
    at = draw(st.lists(places, min_size=rows * rays, max_size=rows * rays))
    return torch.tensor(at).reshape(rows, rays), draw(st.integers(1, rays)), steps


@pytest.mark.parametrize("keep", [1, 2, 3, 4])
def test_every_way_in_which_four_rays_can_change_within_eight_steps(keep: int) -> None:
    at = torch.cartesian_prod(*[torch.arange(1, 10)] * 4)
    for shape in SHAPES:
        brackets = search(Rays(at, shape), keep, 8)
        found, expected = (steps.sort(dim=1, stable=True) for steps in (brackets.high, at))
        torch.testing.assert_close(found.values[:, :keep], expected.values[:, :keep])
        torch.testing.assert_close(found.indices[:, :keep], expected.indices[:, :keep])


@settings(max_examples=30, deadline=None)
@given(cases(), st.sampled_from(SHAPES))
def test_the_nearest_changes_are_found_and_no_other_ray_seems_nearer(
    case: tuple[Tensor, int, int], shape: str
) -> None:
    at, keep, steps = case
    brackets = search(Rays(at, shape), keep, steps)
    expected = at.sort(dim=1, stable=True)
    found = brackets.high.sort(dim=1, stable=True)
    torch.testing.assert_close(found.values[:, :keep], expected.values[:, :keep], rtol=0, atol=0)
    within = expected.values[:, :keep] <= steps
    torch.testing.assert_close(found.indices[:, :keep][within], expected.indices[:, :keep][within])
    assert bool(((brackets.low < at) & (at <= brackets.high)).all())


@pytest.mark.parametrize("shape", SHAPES)
def test_no_ray_takes_much_longer_than_bisection(shape: str) -> None:
    at = torch.randint(1, 1026, (20, 40), generator=torch.Generator().manual_seed(0))
    rays = Rays(at, shape)
    search(rays, 20, 1024)
    assert int(rays.asked.max()) <= 40  # bisection: 10; at worst every bracket is halved by the fourth


@pytest.mark.parametrize("keep", [1, 40, 200])
def test_few_evaluations_do_for_rays_like_those_of_a_network(keep: int) -> None:
    generator = torch.Generator().manual_seed(0)
    scale = 500 * torch.rand(50, 1, generator=generator) + 1000
    at = (scale * (1 + 0.2 * torch.randn(50, 200, generator=generator))).round().long().clamp(1, 4097)
    rays = Rays(at, "concave")
    search(rays, keep, 4096)
    assert float(rays.asked.sum(1).float().mean()) < {1: 310, 40: 600, 200: 1350}[keep]  # bisecting: 2400


def test_a_row_that_is_wrong_from_the_start_is_not_searched() -> None:
    rays = Rays(torch.full((2, 5), 7), "straight")
    brackets = search(rays, 2, 16, start=torch.tensor([-1.0, 1.0]))
    assert brackets.high.tolist() == [[0] * 5, [7] * 5]
    assert int(rays.asked[0].sum()) == 0


def test_a_label_that_changes_to_and_fro_ends_in_one_of_its_changes() -> None:
    generator = torch.Generator().manual_seed(4)
    changed = torch.rand(6, 50, 65, generator=generator) < 0.5
    changed[:, :, 0] = False

    def gap(rows: Tensor, rays: Tensor, steps: Tensor) -> Tensor:
        return torch.where(changed[rows, rays, steps], -1.0, 1.0)

    brackets = Brackets(gap, torch.ones(6), 50, 64)
    brackets.find_nearest(10)
    high, rays = (part[:, :10] for part in brackets.high.sort(dim=1, stable=True))
    rows = torch.arange(6)[:, None]
    assert bool(changed[rows, rays, high].all())
    assert not bool(changed[rows, rays, high - 1].any())
