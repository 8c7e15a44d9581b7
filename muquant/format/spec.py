"""The number format, defined once: everything else (packing, files, ONNX) derives from a `MuLawSpec`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self, get_args

from muquant.base.errors import InputError
from muquant.base.values import field_values
from muquant.format.steps import FEWEST

Domain = Literal["decoded", "mapped"]
Levels = Literal["mid-rise", "mid-tread"]
Grid = Literal["auto", "int4", "int8", "int16"]

MIN_MU, MAX_MU = 1e-300, 2.0**16
"""Of the expansion, where it is not 0. Below, products are subnormal, and runtimes take them for 0."""


@dataclass(frozen=True)
class LevelGrid:
    """The integers that the levels k of a weight may be.

    Attributes:
        storage: the integer type that holds them.
        largest: the largest of them, odd where all are.
        odd: only odd ones, so that zero is not among them.
        widest: bits of the widest codes that may lie on it.
    """

    storage: Literal["int8", "int16"]
    largest: int
    odd: bool = False
    widest: int = 8

    def multiple(self, n: int) -> int:
        """The largest integer of the grid that is a multiple of n, of which i / n is on the grid as well for
        every i that counts; `largest` where there is none.

        Where all are odd, so are n and i, those of mid-rise.
        """
        quotient = self.largest // n
        if self.odd and quotient % 2 == 0:
            quotient -= 1
        return quotient * n if quotient > 0 else self.largest


LEVEL_GRIDS: dict[tuple[str, Levels], LevelGrid] = {
    ("int4", "mid-rise"): LevelGrid("int8", 15, odd=True, widest=4),
    ("int4", "mid-tread"): LevelGrid("int8", 7, widest=4),
    ("int8", "mid-rise"): LevelGrid("int8", 127),
    ("int8", "mid-tread"): LevelGrid("int8", 127),
    ("int16", "mid-rise"): LevelGrid("int16", 32767),
    ("int16", "mid-tread"): LevelGrid("int16", 32767),
}
"""Grid and kind of levels -> where levels lie.

"int4" has no more of them than four bits tell apart: k = 2 j + 1 for mid-rise, j = -8..7, and k = -7..7 for
mid-tread."""


@dataclass(frozen=True)
class Granularity:
    """Which weights share a step.

    A weight is seen as a matrix [channels, inputs] (the channel axis first, the others flattened). The steps
    are

    - "tensor": one, shape [1, 1];
    - "channel": one for each output channel, shape [channels, 1];
    - "group:G": one for each run of G inputs of a channel, shape [channels, ceil(inputs / G)], the last one
      short.
    """

    kind: Literal["tensor", "channel", "group"]
    group_size: int = 0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "tensor", "channel" or "group:G" with G >= 1."""
        kind, _, size = text.partition(":") if isinstance(text, str) else ("", "", "")
        if kind == "group" and size.isdecimal() and 0 < int(size) < 2**31:
            return cls("group", int(size))
        if text in ("tensor", "channel"):
            return cls(text)  # type: ignore[arg-type]
        raise InputError(
            f'granularity {text!r} is unknown; expected "tensor", "channel" or "group:G", such as "group:64"'
        )

    def step_shape(self, channels: int, inputs: int) -> tuple[int, int]:
        """Return the shape of the steps for a weight matrix [channels, inputs]."""
        if self.kind == "tensor":
            return 1, 1
        if self.kind == "channel":
            return channels, 1
        return channels, -(-inputs // self.group_size)


@dataclass(frozen=True)
class MuLawSpec:
    """How a weight is written in few bits: `weight = float32(k) * step`, `k = grid_level[code]`.

    `k` is an integer on a grid (-127..127 for "int8", see `LEVEL_GRIDS`), `step = float32(scale / grid_max)`.

    Attributes:
        bits: width of a code, 2 to 8.
        mu: companding parameter, 0 (uniform levels) to 65536; "auto" leaves it to the observer.
        domain: "decoded" rounds the weight itself to levels F^-1(y): the law is a codec. "mapped" deploys
            F(weight), rounded to uniform levels y: the mapping of Song, Fallon, Li, which changes the
            function of the network.
        granularity: which weights share a step, see `Granularity`.
        levels: "mid-rise" has 2^bits levels, symmetric, none at zero; "mid-tread" 2^bits - 1 with an exact
            zero, its spare last code is never written and decodes to zero.
        grid: integers on which levels lie; "auto" is "int8" to 6 bits and "int16" above, where int8 levels
            would collide. "int4", for at most 4 bits, holds no more levels than a 4-bit kernel can take.
        step_bits: 8 rounds the steps of a weight that has many to five significant bits, which files hold in
            8 bits, see `steps.py`; 32 leaves them float32, and so does the mapped domain, of which they are a
            part.

    Raises:
        InputError: a field is outside its range.
    """

    bits: int = 3
    mu: float | Literal["auto"] = "auto"
    domain: Domain = "decoded"
    granularity: str = "channel"
    levels: Levels = "mid-rise"
    grid: Grid = "auto"
    step_bits: Literal[8, 32] = 8

    def __post_init__(self) -> None:
        if type(self.bits) is not int or not 2 <= self.bits <= 8:
            raise InputError(f"bits is {self.bits!r}; expected a whole number from 2 to 8")
        if self.mu != "auto":
            number = isinstance(self.mu, int | float) and not isinstance(self.mu, bool)
            if not number or not (self.mu == 0 or MIN_MU <= self.mu <= MAX_MU):
                raise InputError(
                    f'mu is {self.mu!r}; expected 0, a number from {MIN_MU} to {MAX_MU:.0f}, or "auto"'
                )
        for name, choices in (("domain", Domain), ("levels", Levels), ("grid", Grid)):
            if getattr(self, name) not in get_args(choices):
                expected = ", ".join(f'"{choice}"' for choice in get_args(choices))
                raise InputError(f"{name} is {getattr(self, name)!r}; expected one of {expected}")
        if type(self.step_bits) is not int or self.step_bits not in (8, 32):
            raise InputError(f"step_bits is {self.step_bits!r}; expected 8 or 32")
        if self.bits > self.level_grid.widest:
            raise InputError(
                f'grid is "{self.grid}" and bits is {self.bits}; expected at most {self.level_grid.widest} '
                'bits on this grid: take fewer, or grid "auto"'
            )
        Granularity.parse(self.granularity)
        if self.domain == "mapped" and self.mu == "auto":
            raise InputError(
                'mu is "auto" with domain "mapped": mapping changes the weights, so there is no best mu to '
                "search for; name one, such as mu=255"
            )

    @property
    def steps(self) -> Granularity:
        """The parsed granularity."""
        return Granularity.parse(self.granularity)

    @property
    def grid_name(self) -> Literal["int4", "int8", "int16"]:
        """The grid, with "auto" resolved."""
        if self.grid == "auto":
            return "int8" if self.bits <= 6 else "int16"
        return self.grid

    @property
    def level_grid(self) -> LevelGrid:
        """The integers that `k` may be, and the type that holds them."""
        return LEVEL_GRIDS[self.grid_name, self.levels]

    @property
    def widest(self) -> int:
        """Bits of the widest codes that the grid allows, whatever the width is."""
        return 8 if self.grid == "auto" else LEVEL_GRIDS[self.grid, self.levels].widest

    @property
    def positive_steps(self) -> int:
        """The n of y = i / n: i runs over -n..n, by two for mid-rise (2^bits - 1), by one for mid-tread."""
        return (1 << self.bits) - 1 if self.levels == "mid-rise" else (1 << (self.bits - 1)) - 1

    @property
    def positions(self) -> tuple[float, ...]:
        """The y of each code, 2^bits numbers in [-1, 1]: where it lies in the companded domain.

        Mid-rise: y_i = (2 i - n) / n with n = 2^bits - 1. Mid-tread: y_i = (i - n) / n with
        n = 2^(bits - 1) - 1, and the spare code at zero.
        """
        n = self.positive_steps
        if self.levels == "mid-rise":
            return tuple(i / n for i in range(-n, n + 1, 2))
        return (*(i / n for i in range(-n, n + 1)), 0.0)

    @property
    def codes(self) -> int:
        """How many codes are written: 2^bits, less the spare one of mid-tread."""
        return (1 << self.bits) - (self.levels == "mid-tread")

    @property
    def expansion_mu(self) -> float:
        """The mu by which codes expand to levels: 0 in the mapped domain, whose levels are uniform.

        Raises:
            InputError: mu is still "auto".
        """
        if self.mu == "auto":
            raise InputError('mu is "auto"; an observer must choose it before weights are coded')
        return 0.0 if self.domain == "mapped" else float(self.mu)

    @property
    def grid_max(self) -> int:
        """The largest `k`; for uniform levels the largest multiple of n on the grid, thus equal."""
        grid = self.level_grid
        return grid.multiple(self.positive_steps) if self.expansion_mu == 0 else grid.largest

    def shortens(self, steps: int) -> bool:
        """Whether so many steps of a weight are rounded to what 8 bits hold."""
        return self.step_bits == 8 and self.domain == "decoded" and steps >= FEWEST

    def with_mu(self, mu: float) -> Self:
        """Return this spec with mu chosen."""
        return replace(self, mu=mu)

    def with_bits(self, bits: int) -> Self:
        """Return this spec with another width; where that is too wide for its grid, on grid "auto"."""
        fits = type(bits) is int and bits <= self.level_grid.widest
        return replace(self, bits=bits, grid=self.grid if fits else "auto")

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, document: object) -> Self:
        """Build from `to_dict`'s output; unknown or missing fields are an `InputError`, but for `step_bits`:
        files of old have float32 steps."""
        if isinstance(document, Mapping):
            document = {"step_bits": 32, **document}
        return cls(**field_values(cls, document, "number format"))


SOURCE_SPEC = MuLawSpec(bits=3, mu=0.0, granularity="tensor", levels="mid-tread")
"""The paper's own 3-bit quantizer: uniform, symmetric, per tensor, 7 levels; use observer "absmax"."""
