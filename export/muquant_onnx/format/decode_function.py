"""The companding decoder as ONNX functions: standard operators only, so that stock runtimes run it.

`MuLawTables3(mu) -> tables` computes the codebooks of weights from their mu, `round(grid_max F^-1(y))` in
float64, and turns each into a table of all words of a few codes. `Words3(packed) -> words` cuts bytes into
such words. What is left for each weight is to look its words up in its table. One function serves all weights
of one width, kind of levels and grid. Files have them written out; runtimes fold them at load.

F^-1 is computed as `2 t / (1 - t) / mu` with `t = tanh(|y| ln(1 + mu) / 2)`: ((1 + mu)^|y| - 1) / mu without
its cancellation for small mu, and `ln(1 + mu) = mu ln(u) / (u - 1)`, `u = 1 + mu`, for the same
reason: ONNX has no expm1, log1p.
"""

from dataclasses import dataclass
from typing import Literal

import onnx
import onnx_ir as ir

from muquant.format.packing import CODES_PER_WORD, RUN
from muquant.format.spec import MuLawSpec

DOMAIN = "muquant"
DOMAIN_VERSION = 2
OPSET = 21

PAIRS = 2**16
"""Values of two bytes."""
PAIRED_WIDTHS = (3, 6)
"""Of codes whose words of 12 bits lie in pairs of bytes: two words in three bytes."""

_TYPES = {"int8": ir.DataType.INT8, "int16": ir.DataType.INT16}
_GRID_SUFFIX = {"int4": "Int4", "int8": "", "int16": "Int16"}
_LAYOUT_SUFFIX = {"codes": "Codes", "words": "", "pairs": "Pairs"}

Layout = Literal["codes", "words", "pairs"]
"""What is looked up at once: a code, in the codebook itself; a word of a few, in a table of some kilobytes;
a word as it lies in two bytes, in a table of 2^17 words. The larger, the fewer intermediate values."""


@dataclass(frozen=True)
class Words:
    """The function that cuts bytes into words, `(packed) -> words`: uint8 [bytes] to int32.

    Attributes:
        bits: width of a code.
        layout: of "pairs", for `PAIRED_WIDTHS`, each word is left in the two bytes that it lies in, and the
            second of three has its sign turned.
    """

    bits: int
    layout: Layout = "words"

    @property
    def name(self) -> str:
        """Such as "Words3", "Words3Codes", "Words3Pairs"."""
        return f"Words{self.bits}{_LAYOUT_SUFFIX[self.layout]}"

    @property
    def codes(self) -> int:
        """In a word."""
        return 1 if self.layout == "codes" else CODES_PER_WORD[self.bits]

    @property
    def width(self) -> int:
        """Bits of a word."""
        return self.bits * self.codes

    @property
    def row(self) -> tuple[int, int]:
        """The fewest bytes that hold whole words, and these words."""
        nbytes = next(n for n in range(1, RUN + 1) if 8 * n % self.width == 0)
        return nbytes, 8 * nbytes // self.width

    def shape(self, nbytes: int) -> tuple[int, ...]:
        """Of the words of so many bytes: [rows, words in a row], or [bytes] where these are words."""
        per_row, words = self.row
        return (nbytes,) if self.width == 8 else (nbytes // per_row, words)

    def function(self, opset: int = OPSET) -> ir.Function:
        """Build the function for a graph of `opset`, 13 or later: what it uses means the same in all."""
        return _function(self.text(), opset)

    def text(self) -> str:
        """The function in ONNX's textual form, as FORMAT.md shows it."""
        per_row, words = self.row
        if self.width == 8:
            return _text(self.name, "packed", "words", "\n  words = Cast <to = 6> (packed)")
        offsets = [i * self.width for i in range(words)]
        places = [[self._place(q, offset) for offset in offsets] for q in range(per_row)]
        flat = ", ".join(str(place) for row in places for place in row)
        lines = f"""
  row_shape = Constant <value = int64[2] {{-1, {per_row}}}> ()
  rows = Reshape (packed, row_shape)
  bytes = Cast <to = 6> (rows)
  places = Constant <value = int32[{per_row},{words}] {{{flat}}}> ()"""
        if self.layout == "pairs":
            return _text(self.name, "packed", "words", f"{lines}\n  words = MatMul (bytes, places)")
        below = ", ".join(str(1 << offset % 8) for offset in offsets)
        lines += f"""
  joined = MatMul (bytes, places)
  below = Constant <value = int32[{words}] {{{below}}}> ()
  shifted = Div (joined, below)
  words_size = Constant <value = int32 {{{1 << self.width}}}> ()
  words = Mod (shifted, words_size)"""
        return _text(self.name, "packed", "words", lines)

    def _place(self, byte: int, offset: int) -> int:
        """What a byte of a row counts in the word that begins at bit `offset`; 0 where it is none of it."""
        first, last = offset // 8, (offset + self.width - 1) // 8
        if not first <= byte <= last:
            return 0
        sign = -1 if self.layout == "pairs" and offset else 1
        return sign * (1 << 8 * (byte - first))


@dataclass(frozen=True)
class Tables:
    """The function that makes tables from mu, `(mu) -> tables`: double [weights, 1] to int8, or int16,
    [weights, words, codes in a word], or [weights, codes] where a word is one code.

    Attributes:
        bits: width of a code.
        levels: "mid-rise" or "mid-tread".
        grid: "int4", "int8" or "int16", the integers on which levels lie.
        places: they hold the j of k = 2 j + 1 instead of k, on a grid of odd k: four bits hold it.
        layout: see `Words`.
        kernel: they hold what onnxruntime's `MatMulNBits` takes of 4 or 8 bits, uint8: integers without a
            sign, each plus half of its range, of 4 bits two in a byte; 0 for none.
    """

    bits: int
    levels: str
    grid: str
    places: bool = False
    layout: Layout = "words"
    kernel: int = 0

    @classmethod
    def of(cls, spec: MuLawSpec, *, places: bool = False) -> "Tables":
        """Return those for `spec`, of words."""
        return cls(spec.bits, spec.levels, spec.grid_name, places)

    @property
    def name(self) -> str:
        """Such as "MuLawTables3", "MuLawTables3MidTread", "MuLawTables8Int16", "MuLawTables3Int4Places"."""
        kind = "MidTread" if self.levels == "mid-tread" else ""
        places = ("Places" if self.places else "") + (f"Kernel{self.kernel}" if self.kernel else "")
        layout = _LAYOUT_SUFFIX[self.layout]
        return f"MuLawTables{self.bits}{kind}{_GRID_SUFFIX[self.grid]}{places}{layout}"

    @property
    def dtype(self) -> ir.DataType:
        """Type of what they hold."""
        return ir.DataType.UINT8 if self.kernel else _TYPES[self._spec.level_grid.storage]

    @property
    def words(self) -> Words:
        """What is looked up in them."""
        return Words(self.bits, self.layout)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the table of one weight."""
        words = self.words
        if words.codes == 1:
            return (1 << self.bits,)
        return 2 * PAIRS if self.layout == "pairs" else 1 << words.width, words.codes // (
            2 if self.kernel == 4 else 1
        )

    @property
    def _spec(self) -> MuLawSpec:
        return MuLawSpec(bits=self.bits, mu=1.0, levels=self.levels, grid=self.grid)  # type: ignore[arg-type]

    def function(self, opset: int = OPSET) -> ir.Function:
        """Build the function for a graph of `opset`, 13 or later: what it uses means the same in all."""
        return _function(self.text(), opset)

    def text(self) -> str:
        """The function in ONNX's textual form, as FORMAT.md shows it."""
        spec = self._spec
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
  scaled = Mul (grid_max, level){self._rounded()}"""
        stored = "rounded"
        if self.kernel:
            codebook += f"""
  half_range = Constant <value = double {{{float(1 << self.kernel - 1)}}}> ()
  unsigned = Add (rounded, half_range)"""
            stored = "unsigned"
        whole = f"Cast <to = {(ir.DataType.INT32 if self.kernel == 4 else self.dtype).value}> ({stored})"
        if self.words.codes == 1:
            return _text(self.name, "mu", "tables", f"{codebook}\n  tables = {whole}")
        found = "Gather <axis = 1> (codebooks, digits)"
        made = f"{codebook}\n  codebooks = {whole}\n{self._digits()}\n"
        if self.kernel != 4:
            return _text(self.name, "mu", "tables", f"{made}  tables = {found}")
        halves = f"""  integers = {found}
  two_in_a_byte = Constant <value = int64[4] {{0, 0, -1, 2}}> ()
  paired = Reshape (integers, two_in_a_byte)
  in_a_byte = Constant <value = int32[2] {{1, 16}}> ()
  placed = Mul (paired, in_a_byte)
  last = Constant <value = int64[1] {{-1}}> ()
  joined = ReduceSum <keepdims = 0> (placed, last)
  tables = Cast <to = {self.dtype.value}> (joined)"""
        return _text(self.name, "mu", "tables", f"{made}{halves}")

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

    def _digits(self) -> str:
        """Lines that make `digits`, the codes of every word, int32 [words, codes in a word]."""
        words = self.words
        shifts = [1 << (self.bits * j) for j in range(words.codes)]
        size = PAIRS if self.layout == "pairs" else 1 << words.width
        lines = f"""
  first = Constant <value = int32 {{0}}> ()
  next = Constant <value = int32 {{1}}> ()
  size = Constant <value = int32 {{{size}}}> ()
  codes = Constant <value = int32 {{{1 << self.bits}}}> ()
  column = Constant <value = int64[1] {{1}}> ()
  all = Range (first, size, next)
  word = Unsqueeze (all, column)
  shifts = Constant <value = int32[{words.codes}] {{{", ".join(map(str, shifts))}}}> ()"""
        if self.layout != "pairs":
            return f"""{lines}
  shifted = Div (word, shifts)
  digits = Mod (shifted, codes)"""
        high = ", ".join(str(shift << 4) for shift in shifts)
        return f"""{lines}
  low_shifted = Div (word, shifts)
  from_end = Sub (size, word)
  high_shifts = Constant <value = int32[{words.codes}] {{{high}}}> ()
  high_shifted = Div (from_end, high_shifts)
  shifted = Concat <axis = 0> (low_shifted, high_shifted)
  digits = Mod (shifted, codes)"""


def _text(name: str, given: str, result: str, body: str) -> str:
    return f"""<opset_import: ["" : {OPSET}], domain: "{DOMAIN}">
{name} ({given}) => ({result}) {{{body}
}}"""


def _function(text: str, opset: int) -> ir.Function:
    function = ir.serde.deserialize_function(onnx.parser.parse_function(text))
    function.opset_imports[""] = opset
    return function
