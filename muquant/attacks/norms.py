"""Balls around images: epsilon, distance, projection, directions of steepest ascent."""

import math
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Literal, get_args

import torch
from torch import Tensor

from muquant.base.errors import InputError

Norm = Literal["linf", "l2"]

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
        norm: "linf" or "l2", of the whole image, in units of the input range.
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
        """Refuse an L2 radius that is larger than the diameter of the inputs' unit cube."""
        diameter = math.sqrt(inputs[0].numel())
        if self.radius is not None and self.norm == "l2" and self.radius > diameter:
            raise InputError(
                f"epsilon: expected at most {diameter:.4g}, the L2 diameter of inputs of "
                f"{inputs[0].numel()} values, found {self.radius:g}"
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
    return flat.abs().amax(1) if norm == "linf" else torch.linalg.vector_norm(flat, dim=1)


@dataclass(frozen=True, eq=False)
class Ball:
    """The closed balls of one radius around images, each cut by [0, 1]: where an ascent may go.

    Attributes:
        clean: the centres [N, ...], in [0, 1].
        radius: at least 0.
        norm: "linf" or "l2".
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
        never leaves the ball.
        """
        if self.norm == "linf":
            return inputs.clamp_(*self.bounds)
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

    A zero gradient stays zero.
    """
    return gradient.sign() if norm == "linf" else unit(gradient)


def unit(vectors: Tensor) -> Tensor:
    """Each image of [N, ...] divided by its L2 norm; zero stays zero."""
    return vectors / per_image(size(vectors, "l2"), vectors).clamp(min=1e-12)


def random_edge(clean: Tensor, radius: float, norm: Norm, generator: torch.Generator) -> Tensor:
    """A random point at the edge of the ball around each clean image, then clipped to [0, 1].

    In Linf it is uniform noise, made as long as the radius allows; in L2 its direction is uniform.
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
        offset = unit(torch.randn(clean.shape, generator=generator).to(clean.device))
        length = torch.rand(len(clean), generator=generator).to(clean.device) ** (1 / values)
        offset = offset * per_image(length, clean)
    return Ball(clean, radius, norm).project_(torch.add(clean, offset, alpha=radius))
