"""Balls around images: epsilon, distance, projection, directions of steepest ascent."""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from muquant.base.errors import InputError

Norm = Literal["linf", "l2", "l1"]

TOLERANCE = 1e-6
"""By how much a float32 perturbation may exceed epsilon."""


def parse_epsilon(epsilon: float | str) -> float:
    """Read a radius such as 0.031 or "8/255".

    Raises:
        InputError: it is not a finite number of at least 0.
    """
    try:
        value = float(Fraction(epsilon)) if isinstance(epsilon, str) else float(epsilon)
    except (ValueError, TypeError, ZeroDivisionError, OverflowError):
        value = math.nan
    if not 0 <= value < math.inf:
        raise InputError(f'epsilon: expected a number >= 0 such as 0.3 or "8/255", found {epsilon!r}')
    return value


@dataclass(frozen=True)
class Threat:
    """The set in which an adversarial image must lie, besides [0, 1].

    Attributes:
        norm: "linf", "l2" or "l1", of the whole image, in units of the input range.
        radius: of the closed ball around the clean image; None where any distance counts.

    Raises:
        InputError: the norm is unknown, or an Linf radius is above 1, the range of the inputs.
    """

    norm: Norm
    radius: float | None

    def __post_init__(self) -> None:
        if self.norm not in get_args(Norm):
            raise InputError(f"norm {self.norm!r} is unknown; expected one of {', '.join(get_args(Norm))}")
        if self.radius is not None and self.norm == "linf" and self.radius > 1:
            raise InputError(f"epsilon: expected at most 1, the range of the inputs, found {self.radius:g}")

    def fit(self, inputs: Tensor) -> None:
        """Refuse an L2 or L1 radius that is larger than the diameter of the inputs' unit cube."""
        values = inputs[0].numel()
        diameter = {"linf": 1.0, "l2": math.sqrt(values), "l1": float(values)}[self.norm]
        if self.radius is not None and self.radius > diameter:
            raise InputError(
                f"epsilon: expected at most {diameter:.4g}, the {self.norm.upper()} diameter of inputs of "
                f"{values} values, found {self.radius:g}"
            )


def per_image(values: Tensor, like: Tensor) -> Tensor:
    """Shape values [N] so that they broadcast over images [N, ...]."""
    return values.reshape(-1, *[1] * (like.dim() - 1))


def copy_rows(rows: Tensor, source: Tensor, into: Tensor) -> None:
    """Give `into` some rows, int64 [M], of `source`: on a CPU that is faster than `where` and a mask."""
    into.index_copy_(0, rows, source.index_select(0, rows))


def size(difference: Tensor, norm: Norm) -> Tensor:
    """The norm of each image of [N, ...], [N]."""
    flat = difference.flatten(1)
    if norm == "linf":
        return flat.abs().amax(1)
    length: Tensor = torch.linalg.vector_norm(flat, ord=1 if norm == "l1" else 2, dim=1)
    return length


@dataclass(frozen=True, eq=False)
class Ball:
    """The closed balls of one radius around images, each cut by [0, 1]: where an ascent may go.

    Attributes:
        clean: the centres [N, ...], in [0, 1].
        radius: at least 0.
        norm: "linf", "l2" or "l1".
    """

    clean: Tensor
    radius: float
    norm: Norm

    @cached_property
    def bounds(self) -> tuple[Tensor, Tensor]:
        """The least and the greatest values [N, ...] that an Linf ball has."""
        return (self.clean - self.radius).clamp_(min=0), (self.clean + self.radius).clamp_(max=1)

    def project_(self, inputs: Tensor) -> Tensor:
        """Move inputs [N, ...] into the balls, in place, and return them.

        Linf clamps each value. L2 shortens the difference to the centre, and then clamps to [0, 1], which
        never leaves the ball. L1 goes to the nearest point of ball and cube together: what clamping takes
        away is left to other values (Croce, Hein 2021).
        """
        if self.norm == "linf":
            return inputs.clamp_(*self.bounds)
        if self.norm == "l1":
            nearest = _shrunk(inputs - self.clean, self.clean, self.radius)
            return inputs.copy_(self.clean).add_(nearest).clamp_(0, 1)
        difference = inputs.sub_(self.clean)
        length = size(difference, "l2").clamp_(min=1e-12)
        return (
            difference.mul_(per_image((self.radius / length).clamp_(max=1), difference))
            .add_(self.clean)
            .clamp_(0, 1)
        )

    def select(self, rows: Tensor) -> "Ball":
        """The balls of some rows, a mask [N] or places [M]."""
        return Ball(self.clean[rows], self.radius, self.norm)


def project(inputs: Tensor, clean: Tensor, radius: float, norm: Norm) -> Tensor:
    """Inputs [N, ...] moved into the balls around clean [N, ...], see `Ball`."""
    return Ball(clean, radius, norm).project_(inputs.clone())


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """The direction of unit norm along which the loss rises fastest: the sign, or the unit L2 gradient.

    In L1 it would be a single value, and an ascent would need a step for each; so these are the signs of the
    largest hundredth of the values (Tramer, Boneh 2019). A zero gradient stays zero.
    """
    if norm == "linf":
        return gradient.sign()
    if norm == "l2":
        return unit(gradient)
    return sparse_signs(gradient, gradient.new_full((len(gradient),), 0.01))


def sparse_signs(gradient: Tensor, share: Tensor) -> Tensor:
    """The signs of the largest values of each image of [N, ...] and 0 elsewhere, of L1 norm 1.

    Args:
        gradient: [N, ...].
        share: [N], 0..1, of the values; at least one is taken, and all that are as large as the last one.
    """
    magnitude = gradient.abs().flatten(1)
    values = magnitude.shape[1]
    place = ((1 - share) * values).long().clamp(max=values - 1)[:, None]
    least = magnitude.sort(dim=1).values.gather(1, place)
    signs = gradient.sign() * (magnitude >= least).reshape(gradient.shape)
    return signs / per_image(size(signs, "l1"), signs).clamp(min=1e-10)


def unit(vectors: Tensor) -> Tensor:
    """Each image of [N, ...] divided by its L2 norm; zero stays zero."""
    return vectors / per_image(size(vectors, "l2"), vectors).clamp(min=1e-12)


def _shrunk(difference: Tensor, clean: Tensor, radius: float) -> Tensor:
    """The point next to a difference [N, ...] to clean images that an L1 ball and [0, 1] both hold.

    It is min(max(|difference| - level, 0), room) in its sign, with the level that makes it as long as
    allowed. That length falls with the level along straight pieces, whose corners are sorted.
    """
    long = difference.double().abs().flatten(1)
    room = torch.where(difference > 0, 1 - clean, clean).double().flatten(1)
    allowed = max(radius - long.shape[1] * 2.0**-25, 0.0)  # what float32 may add to a sum of so many values
    whole = long.minimum(room).sum(1, keepdim=True)
    corners, order = torch.cat(((long - room).clamp(min=0), long), dim=1).sort(dim=1)
    falling = torch.where(order < long.shape[1], 1.0, -1.0).to(long).cumsum(1)[:, :-1]
    lengths = torch.cat((whole, whole - (falling * corners.diff(dim=1)).cumsum(1)), dim=1)
    piece = (lengths > allowed).sum(1, keepdim=True).sub(1).clamp(min=0, max=falling.shape[1] - 1)
    over = (lengths.gather(1, piece) - allowed).clamp(min=0)
    level = corners.gather(1, piece) + over / falling.gather(1, piece).clamp(min=1)
    level = torch.where(whole > allowed, level, 0.0)
    kept = (long - level).clamp(min=0).minimum(room).to(difference)
    return difference.sign() * kept.reshape(difference.shape)


def random_edge(clean: Tensor, radius: float, norm: Norm, generator: torch.Generator) -> Tensor:
    """A random point at the edge of the ball around each clean image, then clipped to [0, 1].

    In Linf it is uniform noise, made as long as the radius allows; in L2 and L1 it is normal noise.
    """
    if norm == "linf":
        offset = torch.rand(clean.shape, generator=generator).to(clean.device).mul_(2).sub_(1)
    else:
        offset = torch.randn(clean.shape, generator=generator).to(clean.device)
    length = per_image(size(offset, norm), offset).add(1e-12)
    return (clean + radius * (offset / length)).clamp_(0, 1)


def random_start(clean: Tensor, radius: float, norm: Norm, generator: torch.Generator) -> Tensor:
    """A point drawn uniformly from the ball around each clean image, then clipped to [0, 1]."""
    if norm == "linf":
        offset = torch.rand(clean.shape, generator=generator).to(clean.device).mul_(2).sub_(1)
    else:
        values = clean[0].numel()
        offset = torch.randn(clean.shape, generator=generator).to(clean.device)
        if norm == "l1":  # the sign of a value that is distributed exponentially
            offset = (
                offset.sign() * -torch.rand(clean.shape, generator=generator).to(clean.device).neg_().log1p_()
            )
        offset = offset / per_image(size(offset, norm), offset).clamp(min=1e-12)
        length = torch.rand(len(clean), generator=generator).to(clean.device) ** (1 / values)
        offset = offset * per_image(length, clean)
    return Ball(clean, radius, norm).project_(torch.add(clean, offset, alpha=radius))
