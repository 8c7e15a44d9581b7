"""What a weight costs and loses at each width."""

import math
from dataclasses import dataclass
from typing import Literal, Self, get_args

from torch import Tensor

from muquant.base.errors import InputError
from muquant.base.values import field_values
from muquant.compression.auto import WIDEST
from muquant.format.channels import Channels
from muquant.format.spec import MuLawSpec
from muquant.quantization.moments import InputMoments
from muquant.quantization.quality import weight_sqnr
from muquant.quantization.quantize import quantize

WIDTHS = tuple(range(2, WIDEST + 1))

SEARCHED = 5
"""The widest for which mu is searched; wider ones are measured with the same. That is a fraction of a decibel
from their own best, where a bit is six, and the search takes the longer the wider the codes."""

MeasuredOn = Literal["output", "weight"]


@dataclass(frozen=True)
class WidthPoint:
    """A weight at one width.

    Attributes:
        bits: width of a code.
        nbytes: bytes of packed codes and steps.
        noise: the power of what rounding adds, over that of the signal: 0 where nothing is lost.

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
        """The noise as a ratio of signal to noise in dB; None where nothing is lost."""
        return -10 * math.log10(self.noise) if self.noise else None


@dataclass(frozen=True)
class WidthCurve:
    """A weight at all widths.

    Attributes:
        name: path of the weight, or its name in a graph.
        measured_on: whose noise: that of the layer's "output" on held-out samples, or that of the "weight"
            itself where its inputs are not known.
        pinned: the width that was asked for; None where it may be chosen.
        points: one for each width from 2 to 8 bits, in this order.

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
            raise InputError(f'measured_on is {self.measured_on!r:.60}; expected "output" or "weight"')
        if self.pinned is not None and (type(self.pinned) is not int or self.pinned not in WIDTHS):
            raise InputError(f"pinned is {self.pinned!r:.60}; expected null or a number from 2 to {WIDEST}")
        if tuple(point.bits for point in self.points) != WIDTHS:
            raise InputError(f"points: expected one for each width from 2 to {WIDEST}, in this order")

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
        if bits not in WIDTHS[1:]:
            return None
        narrow, wide = self.at(bits - 1), self.at(bits)
        return (narrow.noise - wide.noise) / max(wide.nbytes - narrow.nbytes, 1)

    @classmethod
    def from_dict(cls, document: object) -> Self:
        """Build from plain JSON values; what does not fit is an `InputError`."""
        values = field_values(cls, document, "weight of a plan")
        points = values["points"]
        if not isinstance(points, tuple):
            raise InputError(f"points is {points!r:.60}; expected a list")
        values["points"] = tuple(WidthPoint(**field_values(WidthPoint, point, "point")) for point in points)
        return cls(**values)


def measure(
    name: str,
    weight: Tensor,
    spec: MuLawSpec,
    channels: Channels,
    observer: str,
    samples: InputMoments | None = None,
    pinned: int | None = None,
) -> WidthCurve:
    """Return what `weight` costs and loses at each width, every weight at its nearest level.

    Better rounding lowers the noise of all widths by much the same factor, and takes far longer.

    Args:
        name: of the weight.
        weight: float32, any shape.
        spec: the format but for its width.
        channels: which of its weights are one output channel.
        observer: a name of `OBSERVERS`: how scale and mu are chosen.
        samples: what the layer's inputs are like, if that is known.
        pinned: see `WidthCurve`.

    Raises:
        InputError: the weight holds NaN or infinity, or a name is unknown.
    """

    measured_on: MeasuredOn = "weight" if samples is None else "output"
    form, points = spec, []
    for bits in WIDTHS:
        found = quantize(weight, form.with_bits(bits), channels, observer, "nearest", samples)
        if found.output is not None:
            ratio: float | None = found.output.nearest
        else:
            ratio = weight_sqnr(weight, found.tensor)
        points.append(WidthPoint(bits, found.tensor.nbytes, 0.0 if ratio is None else 10 ** (-ratio / 10)))
        if bits == SEARCHED:
            form = spec.with_mu(float(found.tensor.spec.mu))
    return WidthCurve(name, measured_on, pinned, tuple(points))
