"""What Square shows to a model that never gives in: its start, then one change of it after another."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from muquant.attacks import CallableTarget, Norm, Square

CLEAN = torch.full((5, 2, 12, 10), 0.5)


def shown(norm: Norm, epsilon: float, queries: int, horizon: int | None = None) -> Tensor:
    """The images of each query, [queries, 5, 2, 12, 10]."""
    batches: list[NDArray[np.float32]] = []

    def stubborn(inputs: NDArray[np.float32]) -> Tensor:
        batches.append(inputs.copy())
        return torch.tensor([1.0, 0.0]).repeat(len(inputs), 1)

    attack = Square(epsilon=epsilon, norm=norm, queries=queries, horizon=horizon)
    attack.attack(CallableTarget(stubborn), CLEAN, torch.zeros(5, dtype=torch.int64))
    assert len(batches) == 1 + queries
    return torch.from_numpy(np.stack(batches[1:]))


def test_linf_changes_one_square_to_the_edge_of_the_ball() -> None:
    start, *candidates = shown("linf", 0.25, 200)
    torch.testing.assert_close((start - CLEAN).abs(), torch.full_like(CLEAN, 0.25))
    assert torch.equal(start, start[:, :, :1].expand_as(start)), "not stripes"
    sides = []
    for candidate in candidates:
        torch.testing.assert_close((candidate - CLEAN).abs(), torch.full_like(CLEAN, 0.25))
        changed = candidate != start
        assert changed.flatten(1).any(1).all(), "a query that changes nothing"
        for image, mask in zip(candidate, changed.any(1), strict=True):
            rows, columns = mask.nonzero().T
            window = image[:, rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
            assert torch.equal(window, window[:, :1, :1].expand_as(window))
            sides.append(max(window.shape[1:]))
    assert max(sides[:25]) > 5
    assert max(sides[-25:]) == 1
    assert not torch.equal(candidates[0], candidates[1])


def test_the_window_shrinks_by_the_horizon() -> None:
    """At a quarter of the horizon it is as large as a search of four times the queries has it by then."""

    def sides(horizon: int | None, queries: int) -> list[int]:
        start, *candidates = shown("linf", 0.25, queries, horizon)[:50]
        changed = [(candidate != start).any(1) for candidate in candidates]
        return [int(mask.flatten(1).sum(1).max()) for mask in changed]

    assert sides(200, 50) == sides(None, 200)
    assert sides(200, 50) != sides(None, 50)


def test_linf_reaches_every_place() -> None:
    start, *candidates = shown("linf", 0.25, 1000)
    assert torch.stack([candidate != start for candidate in candidates[200:]]).flatten(0, 1).any(0).all()


def test_l2_spends_all_of_the_radius() -> None:
    """No pixel comes to a bound here, so that nothing is cut off."""
    start, *candidates = shown("l2", 0.4, 120)
    for images in (start, *candidates):
        length = (images - CLEAN).double().flatten(1).norm(dim=1)
        torch.testing.assert_close(length, torch.full_like(length, 0.4), rtol=1e-5, atol=0)
    offset = (start - CLEAN).abs()
    changed = torch.stack([(candidate - start).abs() > 0.1 * offset for candidate in candidates])
    places = changed.any(2).flatten(2).sum(2)
    assert places.min() >= 1
    assert places[-20:].max() <= 2, "more than the one window and the other"
