"""Square: random search over square windows that asks for logits only (Andriushchenko et al. 2020)."""

import math
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from muquant.attacks.base import BallAttack
from muquant.attacks.losses import margin
from muquant.attacks.norms import Norm, copy_rows, per_image, project, size, unit
from muquant.attacks.problem import AttackProblem

FALLS: dict[Norm, int] = {"l2": 2, "l1": 4}
"""The power of the distance with which a bump falls."""

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Iterations of 10,000 at which the window's area is halved (section 5 of the paper)."""


@dataclass(frozen=True, kw_only=True)
class Square(BallAttack):
    """Change one window at a time, and keep what raises the margin. One batch for each query.

    Images are [N, C, H, W]; inputs of another shape are taken as one row of values.

    Attributes:
        queries: iterates shown to the target for each image, at least 1; the check of the clean image and
            the verification are besides.
        area: of the first window, as a fraction of the image, 0..1. 0.8 is AutoAttack's; the paper takes
            0.05 to 0.8 in Linf and 0.1 in L2.
        horizon: the queries in which the window would become smallest; None for `queries`. AutoAttack, which
            takes 5,000, has it at 10,000.
    """

    queries: int = 1000
    area: float = 0.8
    horizon: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_at_least(1, "queries", *() if self.horizon is None else ("horizon",))
        self._check_at_least(0, "area")

    def run(self, problem: AttackProblem) -> None:
        """Start from stripes (Linf) or tiles (L2, L1), then search."""
        rows = problem.rows()
        shape = problem.clean.shape
        clean = problem.clean if len(shape) == 4 else problem.clean.flatten(1)[:, None, None]
        start, propose = STARTS[self.norm]
        inputs = project(clean + start(problem, clean), clean, problem.radius, self.norm)
        lead = problem.objective(margin)
        best = lead(problem.logits(inputs.reshape(-1, *shape[1:]), rows), rows)
        for number in range(1, self.queries):
            left = ~problem.fooled[rows]
            if not left.all():
                rows, clean, inputs, best = rows[left], clean[left], inputs[left], best[left]
            if not len(rows):
                return
            candidate = propose(problem, inputs, clean, self._side(number, clean))
            value = lead(problem.logits(candidate.reshape(-1, *shape[1:]), rows), rows)
            copy_rows((value > best).nonzero()[:, 0], candidate, inputs)
            best = torch.maximum(value, best)

    def _side(self, number: int, clean: Tensor) -> int:
        """The window's side at a query."""
        progress = number / (self.horizon or self.queries) * 10_000
        area = self.area / 2 ** sum(progress > mark for mark in HALVINGS)
        return max(round(math.sqrt(area * clean.shape[2] * clean.shape[3])), 1)


def _stripes(problem: AttackProblem, clean: Tensor) -> Tensor:
    """Vertical stripes of plus or minus the radius, one sign for each column and channel."""
    count, channels, _, width = clean.shape
    return problem.radius * problem.signs(count, channels, 1, width).expand_as(clean)


def _new_window(problem: AttackProblem, inputs: Tensor, clean: Tensor, side: int) -> Tensor:
    """Put plus or minus the radius into a random window of each image, one sign for each channel."""
    window = _window(problem, inputs, side)
    step = problem.radius * problem.signs(*inputs.shape[:2], 1, 1)
    old, centre = _read(inputs, window), _read(clean, window)
    new = (centre + step).clamp_(0, 1)
    idle = (new - old).abs_().amax((1, 2, 3), keepdim=True) < 1e-7
    return _write(inputs, window, torch.where(idle, (centre - step).clamp_(0, 1), new))


def _window(problem: AttackProblem, inputs: Tensor, side: int) -> Tensor:
    """A random window of each image [N, C, H, W], as places in H W: int64 [N, h, w]."""
    count, _, height, width = inputs.shape
    h, w = min(side, height), min(side, width)
    top = (problem.uniform(count, 1, 1) * (height - h + 1)).long()
    left = (problem.uniform(count, 1, 1) * (width - w + 1)).long()
    rows, columns = torch.arange(h, device=top.device)[:, None], torch.arange(w, device=top.device)
    return (top + rows) * width + left + columns


def _read(images: Tensor, window: Tensor) -> Tensor:
    """What images [N, C, H, W] have in the windows [N, h, w], [N, C, h, w]."""
    places = window.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).gather(2, places).reshape(*images.shape[:2], *window.shape[1:])


def _write(images: Tensor, window: Tensor, values: Tensor) -> Tensor:
    """A copy of images [N, C, H, W] with values [N, C, h, w] in the windows [N, h, w]."""
    places = window.flatten(1)[:, None].expand(-1, images.shape[1], -1)
    return images.flatten(2).scatter(2, places, values.flatten(2)).reshape(images.shape)


def _tiles(problem: AttackProblem, clean: Tensor) -> Tensor:
    """A grid of five by five bumps of random signs, scaled to the radius."""
    norm = problem.threat.norm
    count, channels, height, width = clean.shape
    h, w = max(height // 5, 1), max(width // 5, 1)
    rows, columns = -(-height // h), -(-width // w)
    bumps = _bump(h, w, norm).to(clean.device).repeat(rows, columns)[:height, :width]
    signs = problem.signs(count, channels, rows, columns)
    signs = signs.repeat_interleave(h, 2).repeat_interleave(w, 3)[:, :, :height, :width]
    offset = bumps * signs
    return problem.radius * offset / per_image(size(offset, norm), offset)


def _moved_mass(problem: AttackProblem, inputs: Tensor, clean: Tensor, side: int) -> Tensor:
    """Algorithm 3: empty one window, and spend its norm, and what is unused, on a bump in another.

    In L1 bumps fall faster, and each channel may take what is there for all: the projection decides (Croce,
    Hein 2021).
    """
    norm, order = problem.threat.norm, 1 if problem.threat.norm == "l1" else 2
    count, channels = inputs.shape[:2]
    offset = inputs - clean
    filled, emptied = _window(problem, inputs, side), _window(problem, inputs, side)
    old = _read(offset, filled)
    rest = _write(_write(offset, emptied, torch.zeros_like(old)), filled, torch.zeros_like(old))
    mass, left = (each.abs().pow(order).sum((2, 3)) for each in (offset, rest))
    unused = (problem.radius**order - mass.sum(1, keepdim=True)).clamp(min=0)
    available = (mass - left + unused / channels).clamp(min=0).pow(1 / order)[..., None, None]
    bump = _two_bumps(old.shape[2], old.shape[3], norm).to(inputs.device)
    turned = _two_bumps(old.shape[3], old.shape[2], norm).to(inputs.device).T
    bump = torch.where(problem.uniform(count, 1, 1, 1) < 0.5, bump, turned)
    signed = problem.signs(count, channels, 1, 1) * bump
    new = _unit_channels(signed + _unit_channels(old, norm), norm)
    if norm == "l1":
        moved = clean + _write(rest, filled, new * available * channels)
        return project(moved, clean, problem.radius, norm)
    offset = unit(_write(rest, filled, new * available))  # where bump and old value cancel, it is too short
    return (clean + problem.radius * offset).clamp_(0, 1)


def _unit_channels(windows: Tensor, norm: Norm) -> Tensor:
    """Each channel of [N, C, h, w] divided by its norm; zero stays zero."""
    channels = windows.flatten(0, 1)
    return (channels / per_image(size(channels, norm), channels).clamp(min=1e-12)).reshape(windows.shape)


@cache
def _bump(height: int, width: int, norm: Norm) -> Tensor:
    """Equation 2: a pyramid of falling inverse powers around the middle, of norm 1, [height, width]."""
    n = height // 2
    r = torch.arange(1, height + 1)[:, None] - n - 1
    s = torch.arange(1, width + 1)[None] - width // 2 - 1
    rings = torch.maximum(r.abs(), s.abs())
    layers = n - rings
    k = torch.arange(max(n, width // 2) + 1)
    terms = 1.0 / (max(n, width // 2) + 1 - k) ** FALLS[norm]
    sums = terms.cumsum(0)
    top = layers + max(n, width // 2) - n
    bump = sums[top.clamp(min=0)]
    return bump / size(bump[None], norm)


@cache
def _two_bumps(height: int, width: int, norm: Norm) -> Tensor:
    """A bump and its negative side by side, of norm 1, [height, width]."""
    half = height // 2
    if not half:
        return _bump(height, width, norm)
    pair = torch.cat([_bump(half, width, norm), -_bump(height - half, width, norm)])
    return pair / size(pair[None], norm)


STARTS = {"linf": (_stripes, _new_window), "l2": (_tiles, _moved_mass), "l1": (_tiles, _moved_mass)}
