"""The companding decoder as an ONNX function: standard operators only, so that stock onnxruntime runs it.

`MuLawDecode3(packed, mu, shape) -> levels` computes the codebook from mu, `round(grid_max F^-1(y))` in
float64, turns it into a table of all words of a few codes, cuts the bytes into words, and looks them up. One
function serves all weights of one width, kind of levels and grid; onnxruntime inlines and folds it at load.

F^-1 is computed as `2 t / (1 - t) / mu` with `t = tanh(|y| ln(1 + mu) / 2)`: ((1 + mu)^|y| - 1) / mu without
its cancellation for small mu, and `ln(1 + mu) = mu ln(u) / (u - 1)`, `u = 1 + mu`, for the same
reason: ONNX has no expm1, log1p.
"""

from dataclasses import dataclass

import onnx
import onnx_ir as ir

from muquant.format.packing import CODES_PER_WORD, RUN
from muquant.format.spec import MuLawSpec
from muquant.format.steps import SIGNIFICANT

DOMAIN = "muquant"
DOMAIN_VERSION = 1
OPSET = 21

_TYPES = {"int8": ir.DataType.INT8, "int16": ir.DataType.INT16}
_GRID_SUFFIX = {"int4": "Int4", "int8": "", "int16": "Int16"}
_PLACES_SUFFIX = "Places"


@dataclass(frozen=True)
class Decoder:
    """Names the function for a format, and builds it.

    Attributes:
        bits: width of a code.
        levels: "mid-rise" or "mid-tread".
        grid: "int4", "int8" or "int16", the integers on which levels lie.
        places: return the j of k = 2 j + 1 instead, on a grid of odd k: four bits hold it.
    """

    bits: int
    levels: str
    grid: str
    places: bool = False

    @classmethod
    def of(cls, spec: MuLawSpec, *, places: bool = False) -> "Decoder":
        """Return the decoder for `spec`."""
        return cls(spec.bits, spec.levels, spec.grid_name, places)

    @property
    def name(self) -> str:
        """Such as "MuLawDecode3", "MuLawDecode3MidTread", "MuLawDecode8Int16", "MuLawDecode3Int4Places"."""
        kind = "MidTread" if self.levels == "mid-tread" else ""
        return f"MuLawDecode{self.bits}{kind}{_GRID_SUFFIX[self.grid]}{_PLACES_SUFFIX if self.places else ''}"

    @property
    def dtype(self) -> ir.DataType:
        """Type of what it returns."""
        return _TYPES[self._spec.level_grid.storage]

    @property
    def _spec(self) -> MuLawSpec:
        return MuLawSpec(bits=self.bits, mu=1.0, levels=self.levels, grid=self.grid)  # type: ignore[arg-type]

    def function(self, opset: int = OPSET) -> ir.Function:
        """Build the function for a graph of `opset`, 13 or later: what it uses means the same in all."""
        return _function(self.text(), opset)

    def text(self) -> str:
        """The function in ONNX's textual form, as FORMAT.md shows it."""
        spec = self._spec
        per_word = CODES_PER_WORD[self.bits]
        y = spec.positions
        codebook = f"""
  zero = Constant <value = double {{0.0}}> ()
  one = Constant <value = double {{1.0}}> ()
  two = Constant <value = double {{2.0}}> ()
  y = Constant <value = double[{len(y)}] {{{", ".join(map(repr, y))}}}> ()
  u = Add (one, mu)
  u_less_one = Sub (u, one)
  u_is_one = Equal (u, one)
  divisor = Where (u_is_one, one, u_less_one)
  log_u = Log (u)
  mu_log_u = Mul (mu, log_u)
  quotient = Div (mu_log_u, divisor)
  log1p_mu = Where (u_is_one, mu, quotient)
  magnitude = Abs (y)
  exponent = Mul (magnitude, log1p_mu)
  half_exponent = Div (exponent, two)
  t = Tanh (half_exponent)
  two_t = Mul (two, t)
  one_less_t = Sub (one, t)
  expm1 = Div (two_t, one_less_t)
  mu_is_zero = Equal (mu, zero)
  mu_or_one = Where (mu_is_zero, one, mu)
  companded = Div (expm1, mu_or_one)
  expanded = Where (mu_is_zero, magnitude, companded)
  sign = Sign (y)
  level = Mul (sign, expanded)
  uniform_max = Constant <value = double {{{float(spec.with_mu(0.0).grid_max)}}}> ()
  companded_max = Constant <value = double {{{float(spec.grid_max)}}}> ()
  grid_max = Where (mu_is_zero, uniform_max, companded_max)
  scaled = Mul (grid_max, level){self._rounded()}
  codebook = Cast <to = {self.dtype.value}> (rounded)
"""
        return f"""<opset_import: ["" : {OPSET}], domain: "{DOMAIN}">
{self.name} (packed, mu, shape) => (levels) {{{codebook}{self._table(per_word)}{self._words(per_word)}
  decoded = Gather <axis = 0> (table, words)
  flat_shape = Constant <value = int64[1] {{-1}}> ()
  flat = Reshape (decoded, flat_shape)
  count = ReduceProd <keepdims = 1> (shape)
  start = Constant <value = int64[1] {{0}}> ()
  cut = Slice (flat, start, count)
  levels = Reshape (cut, shape)
}}"""

    def _rounded(self) -> str:
        """Lines that take `scaled` to the grid, `rounded`; see `grid_levels`."""
        if not self._spec.level_grid.odd:
            return """
  rounded = Round (scaled)"""
        place = """
  distance = Abs (scaled)
  half_distance = Div (distance, two)
  evens_below = Floor (half_distance)
  even = Mul (two, evens_below)
  odd = Add (even, one)"""
        if not self.places:
            return f"""{place}
  rounded = Mul (sign, odd)"""
        return f"""{place}
  signed = Mul (sign, odd)
  signed_less_one = Sub (signed, one)
  rounded = Div (signed_less_one, two)"""

    def _table(self, per_word: int) -> str:
        if per_word == 1:
            return "\n  table = Identity (codebook)\n"
        places = ", ".join(str(1 << (self.bits * j)) for j in range(per_word))
        return f"""
  first = Constant <value = int32 {{0}}> ()
  next = Constant <value = int32 {{1}}> ()
  table_size = Constant <value = int32 {{{1 << (self.bits * per_word)}}}> ()
  codes = Constant <value = int32 {{{1 << self.bits}}}> ()
  places = Constant <value = int32[{per_word}] {{{places}}}> ()
  column = Constant <value = int64[1] {{1}}> ()
  all_words = Range (first, table_size, next)
  word_column = Unsqueeze (all_words, column)
  shifted = Div (word_column, places)
  digits = Mod (shifted, codes)
  table = Gather <axis = 0> (codebook, digits)
"""

    def _words(self, per_word: int) -> str:
        """Cut each run of `bits` bytes into words; bytes are shifted by Mul and Div, which fold fast."""
        width = self.bits * per_word
        if width == 8:
            return "\n  words = Cast <to = 6> (packed)"
        lines = [
            f"run_shape = Constant <value = int64[2] {{-1, {self.bits}}}> ()",
            "run_bytes = Reshape (packed, run_shape)",
            "bytes = Cast <to = 6> (run_bytes)",
        ]
        for q in range(self.bits):
            lines += [
                f"at{q} = Constant <value = int64[1] {{{q}}}> ()",
                f"byte{q} = Gather <axis = 1> (bytes, at{q})",
            ]
        count = RUN // per_word
        for i in range(count):
            lines += _word(i, i * width, width)
        lines.append(f"words = Concat <axis = 1> ({', '.join(f'word{i}' for i in range(count))})")
        return "\n  " + "\n  ".join(lines)


@dataclass(frozen=True)
class StepDecoder:
    """Names and builds the function that decodes steps from 8 bits, `(codes, unit) -> steps`: the k that
    codes stand for, looked up, times the unit; all of it exact."""

    name = "StepDecode8"

    def function(self, opset: int = OPSET) -> ir.Function:
        """Build the function for a graph of `opset`, 13 or later."""
        return _function(self.text(), opset)

    def text(self) -> str:
        """The function in ONNX's textual form, as FORMAT.md shows it."""
        exponents = [max(code // _HIDDEN - 1, 0) for code in range(0, 256, _HIDDEN)]
        return f"""<opset_import: ["" : {OPSET}], domain: "{DOMAIN}">
{self.name} (codes, unit) => (steps) {{
  sixteen = Constant <value = int32 {{{_HIDDEN}}}> ()
  hidden = Constant <value = int32[16] {{{", ".join(str(_HIDDEN * (e > 0)) for e in range(16))}}}> ()
  powers = Constant <value = int32[16] {{{", ".join(str(1 << e) for e in exponents)}}}> ()
  wide = Cast <to = 6> (codes)
  exponent = Div (wide, sixteen)
  mantissa = Mod (wide, sixteen)
  first = Gather <axis = 0> (hidden, exponent)
  significand = Add (first, mantissa)
  power = Gather <axis = 0> (powers, exponent)
  k = Mul (significand, power)
  float_k = Cast <to = 1> (k)
  steps = Mul (float_k, unit)
}}"""


_HIDDEN = 1 << (SIGNIFICANT - 1)


def _function(text: str, opset: int) -> ir.Function:
    function = ir.serde.deserialize_function(onnx.parser.parse_function(text))
    function.opset_imports[""] = opset
    return function


def gives_places(name: str) -> bool:
    """Whether the function of this name returns the j of k = 2 j + 1."""
    return name.endswith(_PLACES_SUFFIX)


def _word(i: int, offset: int, width: int) -> list[str]:
    """Lines that build word `i`, the `width` bits from `offset` on, out of the bytes that it touches."""
    lines: list[str] = []
    total = ""

    def apply(operator: str, part: str, number: int, stem: str) -> str:
        lines.append(f"{stem}_by = Constant <value = int32 {{{number}}}> ()")
        lines.append(f"{stem} = {operator} ({part}, {stem}_by)")
        return stem

    for q in range(offset // 8, (offset + width - 1) // 8 + 1):
        part, low, high = f"byte{q}", max(offset - 8 * q, 0), min(offset + width - 8 * q, 8)
        if high < 8:
            part = apply("Mod", part, 1 << high, f"word{i}_byte{q}_low")
        if low:
            part = apply("Div", part, 1 << low, f"word{i}_byte{q}_high")
        if 8 * q > offset:
            part = apply("Mul", part, 1 << (8 * q - offset), f"word{i}_byte{q}_place")
        if total:
            lines.append(f"word{i}_to{q} = Add ({total}, {part})")
        total = f"word{i}_to{q}" if total else part
    return [*lines, f"word{i} = Identity ({total})"]
