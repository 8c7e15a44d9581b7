"""`Brackets`: where along many rays the label changes, found with as few evaluations as possible."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Gap = Callable[[Tensor, Tensor, Tensor], Tensor]
"""(rows [M], rays [M], steps [M]) -> the gap there, float32 [M]: the logit of the label less the largest
other one. It is above 0 where the label is kept and below 0 where it has changed, never 0."""

PILOT = 25
"""One ray of so many is searched before the others, to learn where they are best evaluated first."""

GROWTH = 1.2
"""Rays on which no change has been found yet are next evaluated so many times as far out."""

PATIENCE = 3
"""A bracket that was not halved by so many evaluations is bisected."""


class Brackets:
    """For each row a bundle of rays; for each ray the bracket in which its label changes.

    Steps are integers: 0 is the image itself. The search ends with brackets of one step, so its result does
    not depend on the order of the evaluations where the label changes once along a ray. Where it changes
    there and back, which is rare, one of the changes is found, not always the first.

    Attributes:
        low: int64 [rows, rays], the last step known to keep the label.
        high: int64 [rows, rays], the first step known to change it; `steps` + 1 while none is known.
        steps: the number of steps, at whose last the search ends.

    Args:
        gap: evaluates the model.
        start: the gap at step 0, float32 [rows]; below 0 the label is wrong from the start, and `high` is 0.
        rays: in each row.
        steps: 1 or more.
    """

    def __init__(self, gap: Gap, start: Tensor, rays: int, steps: int) -> None:
        shape = len(start), rays
        self.steps = steps
        self.low = torch.zeros(shape, dtype=torch.int64, device=start.device)
        self.high = torch.where(start > 0, steps + 1, 0)[:, None].repeat(1, rays)
        self._gap = gap
        self._gap_low = start[:, None].repeat(1, rays)
        self._gap_high = torch.full(shape, torch.nan, device=start.device)
        self._moved = torch.zeros_like(self.low)  # the end that moved last: 1 high, -1 low
        self._stalled = torch.zeros_like(self.low)  # evaluations since the bracket was last halved

    def find_nearest(self, keep: int) -> None:
        """Close the brackets of the `keep` nearest changes of each row, and of others as little as it takes.

        A ray cannot be among the nearest once its `low` is not below the `keep`-th smallest `high`: it is
        dropped, and its `high` stays above all of theirs.
        """
        rays = self.low.shape[1]
        pilots = max(1, rays // PILOT)
        # Not the share that is kept but half as many again: rays found too many are cheaper to sort out than
        # rays found too few, when all the others must be evaluated once more.
        rank = min(pilots, math.ceil(1.5 * pilots * keep / rays))
        middle = torch.full_like(self.low[:, :1], max(1, self.steps // 2))
        self._narrow(pilots, rank, middle)
        expected = self.high[:, :pilots].kthvalue(rank, dim=1, keepdim=True).values
        self._narrow(rays, keep, expected.clamp(max=self.steps))

    def _narrow(self, rays: int, keep: int, first: Tensor) -> None:
        """Evaluate the first `rays` rays, from step `first` [rows, 1] on, until the nearest are known."""
        while True:
            low, high = self.low[:, :rays], self.high[:, :rays]
            nearest = high.kthvalue(keep, dim=1, keepdim=True).values
            unknown = (high - low > 1) & (low < nearest)
            row, ray = unknown.nonzero().unbind(1)
            if not len(row):
                return
            steps = self._next(rays, first)[row, ray]
            self._record((row, ray), steps, self._gap(row, ray, steps))

    def _next(self, rays: int, first: Tensor) -> Tensor:
        """The steps at which to evaluate, int64 [rows, rays], each inside its bracket."""
        low, high, low_gap, high_gap, stalled = (
            state[:, :rays] for state in (self.low, self.high, self._gap_low, self._gap_high, self._stalled)
        )
        zero = low + (high - low) * (low_gap / (low_gap - high_gap))  # regula falsi
        inward = torch.where(stalled < PATIENCE, zero, (low + high) / 2)
        outward = torch.maximum(first, GROWTH * low)
        wanted = torch.where(high <= self.steps, inward, outward)
        return wanted.ceil().to(torch.int64).clamp(low + 1, high - 1)

    def _record(self, places: tuple[Tensor, Tensor], steps: Tensor, gaps: Tensor) -> None:
        """Move one end of each bracket.

        By the Illinois rule the gap of the end that stays is halved when the other moves twice in a row:
        without it, regula falsi would creep along a curved function.
        """
        width = (self.high - self.low)[places]
        changed = gaps < 0
        for side, moved, end, gap, other_gap in (
            (1, changed, self.high, self._gap_high, self._gap_low),
            (-1, ~changed, self.low, self._gap_low, self._gap_high),
        ):
            at = places[0][moved], places[1][moved]
            end[at], gap[at] = steps[moved], gaps[moved]
            other_gap[at] *= torch.where(self._moved[at] == side, 0.5, 1.0)
            self._moved[at] = side
        halved = 2 * (self.high - self.low)[places] <= width
        self._stalled[places] = torch.where(halved, 0, self._stalled[places] + 1)
