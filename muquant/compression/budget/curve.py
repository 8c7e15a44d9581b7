"""What a weight costs and loses at each width."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, Self, get_args

from torch import Tensor

from muquant.base.errors import InputError
from muquant.base.values import field_values
from muquant.compression.auto import WIDEST
from muquant.format.channels import ROWS, Channels
from muquant.format.packing import packed_size
from muquant.format.rows import to_matrix
from muquant.format.spec import MAX_MU, MuLawSpec
from muquant.format.tensor import QuantizedTensor
from muquant.quantization.quality import weight_sqnr
from muquant.quantization.quantize import quantize

WIDTHS = tuple(range(2, WIDEST + 1))

WIDER_MU = 1.5
"""Codes wider than those that mu was searched for are measured with so many times that mu: within 0.3 dB of
their own best on normal, Laplace and Student's weights, where a bit is six. Only one search is done."""

ENOUGH = 2**20
"""Weights of one matrix that tell its noise: of more, channels at equal distances are looked at."""

MeasuredOn = Literal["answers", "weight"]


@dataclass(frozen=True)
class WidthPoint:
    """A weight at one width.

    Attributes:
        bits: width of a code.
        nbytes: bytes of packed codes and steps.
        noise: what the weight's error does to the network's answers, or its power over the weight's, see
            `WidthCurve`; 0 where nothing is lost.

    Raises:
        InputError: a field is outside its range.
    """

    bits: int
    nbytes: int
    noise: float

    def __post_init__(self) -> None:
        if type(self.bits) is not int or self.bits not in WIDTHS:
            raise InputError(f"bits is {self.bits!r:.60}; expected a whole number from 2 to {WIDEST}")
        if type(self.nbytes) is not int or not 0 <= self.nbytes < 2**62:
            raise InputError(f"nbytes is {self.nbytes!r:.60}; expected a whole number from 0 up")
        if type(self.noise) not in (int, float) or not math.isfinite(self.noise) or self.noise < 0:
            raise InputError(f"noise is {self.noise!r:.60}; expected a number from 0 up")

    @property
    def sqnr(self) -> float | None:
        """The noise in dB below 1; None where nothing is lost."""
        return -10 * math.log10(self.noise) if self.noise else None


@dataclass(frozen=True)
class WidthCurve:
    """A weight at all widths.

    Attributes:
        name: path of the weight, or its name in a graph.
        measured_on: whose noise: the distortion of the network's "answers", see `probed`, or that of the
            "weight" alone, where the network cannot be run.
        pinned: the width that was asked for; None where it may be chosen.
        points: one for each width from 2 bits to the widest that the grid allows, 8 mostly, in this order.

    Raises:
        InputError: a field is outside its range.
    """

    name: str
    measured_on: MeasuredOn
    pinned: int | None
    points: tuple[WidthPoint, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise InputError(f"name is {self.name!r:.60}; expected a text")
        if self.measured_on not in get_args(MeasuredOn):
            raise InputError(f'measured_on is {self.measured_on!r:.60}; expected "answers" or "weight"')
        if self.pinned is not None and (type(self.pinned) is not int or self.pinned not in WIDTHS):
            raise InputError(f"pinned is {self.pinned!r:.60}; expected null or a number from 2 to {WIDEST}")
        if not self.points or tuple(point.bits for point in self.points) != WIDTHS[: len(self.points)]:
            raise InputError(f"points: expected one for each width from 2 to at most {WIDEST}, in this order")
        if self.pinned is not None and self.pinned > self.points[-1].bits:
            raise InputError(
                f"pinned is {self.pinned}; expected at most {self.points[-1].bits}, as points go"
            )

    @property
    def allowed(self) -> tuple[WidthPoint, ...]:
        """The points that may be chosen."""
        return self.points if self.pinned is None else (self.at(self.pinned),)

    def at(self, bits: int) -> WidthPoint:
        """The point of a width."""
        return self.points[bits - WIDTHS[0]]

    def fall(self, bits: int) -> float | None:
        """By how much the noise falls for each byte that the last of `bits` bits costs; None where no width
        is so and has a narrower one."""
        if not WIDTHS[0] < bits <= self.points[-1].bits:
            return None
        narrow, wide = self.at(bits - 1), self.at(bits)
        return (narrow.noise - wide.noise) / max(wide.nbytes - narrow.nbytes, 1)

    def times(self, factors: Sequence[float], measured_on: MeasuredOn) -> Self:
        """The same widths, each with so many times the noise, measured on something else."""
        pairs = zip(self.points, factors, strict=True)
        points = tuple(replace(point, noise=point.noise * factor) for point, factor in pairs)
        return replace(self, measured_on=measured_on, points=points)

    @classmethod
    def from_dict(cls, document: object) -> Self:
        """Build from plain JSON values; what does not fit is an `InputError`."""
        values = field_values(cls, document, "weight of a plan")
        points = values["points"]
        if not isinstance(points, tuple):
            raise InputError(f"points is {points!r:.60}; expected a list")
        values["points"] = tuple(WidthPoint(**field_values(WidthPoint, point, "point")) for point in points)
        return cls(**values)


def coded(
    weight: Tensor,
    spec: MuLawSpec,
    bits: int,
    mu: float,
    channels: Channels,
    observer: str,
    rounding: str = "nearest",
) -> QuantizedTensor:
    """Return `weight` at a width.

    Args:
        weight: float32, any shape.
        spec: the format but for its width.
        bits: the width.
        mu: that was searched for the width of `spec`.
        channels: which of its weights are one output channel.
        observer: a name of `OBSERVERS`: how scales are chosen.
        rounding: one of `ROUNDINGS` that looks at the weight alone.
    """
    own = min(MAX_MU, mu * WIDER_MU) if bits > spec.bits and spec.mu == "auto" else mu
    return quantize(weight, spec.with_bits(bits).with_mu(own), channels, observer, rounding).tensor


def measure(
    name: str,
    weight: Tensor,
    spec: MuLawSpec,
    channels: Channels,
    observer: str,
    pinned: int | None = None,
) -> tuple[WidthCurve, float]:
    """Return what `weight` costs and loses at each width, every weight at its nearest level; and its mu.

    Better rounding lowers the noise of all widths by much the same factor, and takes far longer. Of large
    weights some channels are looked at, see `ENOUGH`.

    Args:
        name: of the weight.
        weight: float32, any shape.
        spec: the format; mu is searched for its width alone.
        channels: which of its weights are one output channel.
        observer: a name of `OBSERVERS`: how scale and mu are chosen.
        pinned: see `WidthCurve`.

    Raises:
        InputError: the weight holds NaN or infinity, or a name is unknown.
    """
    some = to_matrix(weight, channels)[:: max(1, weight.numel() // ENOUGH)]
    mu = float(quantize(some, spec, ROWS, observer, "nearest").tensor.spec.mu)
    whole = coded(weight, spec, spec.bits, mu, channels, observer)
    steps = whole.nbytes - packed_size(weight.numel(), spec.bits)
    points = []
    for bits in range(WIDTHS[0], spec.widest + 1):
        ratio = weight_sqnr(some, coded(some, spec, bits, mu, ROWS, observer))
        nbytes = packed_size(weight.numel(), bits) + steps
        points.append(WidthPoint(bits, nbytes, 0.0 if ratio is None else 10 ** (-ratio / 10)))
    return WidthCurve(name, "weight", pinned, tuple(points)), mu
