"""Steps in 8 bits: for each a code, a small float without a sign, and one unit for all steps of a weight.

    step = float32(k) * unit                      unit a power of two: the product is exact
    k = code                                      code < 16
    k = (16 + code mod 16) * 2^(code div 16 - 1)  else

Steps of five significant bits that are not too far below the largest lose nothing by this. Whether a weight's
steps are such is seen in them alone.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Steps = NDArray[np.float32]
FEWEST = 96
"""Steps of a weight from which on they have 8 bits: of fewer, what says so takes more bytes than it saves."""
SIGNIFICANT = 5
"""Bits of a k, the first of which is not written."""
TOP = 18
"""The exponent of the largest k: it is at least 2^TOP, and below 2^(TOP + 1)."""
SMALLEST_UNIT = 2.0**-126
"""The smallest normal number of float32."""
_HIDDEN = 1 << (SIGNIFICANT - 1)


class CodedSteps(NamedTuple):
    """Steps in 8 bits.

    Attributes:
        codes: uint8, of any shape.
        unit: float32 [].
    """

    codes: NDArray[np.uint8]
    unit: NDArray[np.float32]

    @property
    def nbytes(self) -> int:
        """Bytes that they take."""
        return self.codes.nbytes + self.unit.nbytes

    def decoded(self) -> Steps:
        """Return the steps, of the shape of the codes."""
        step: Steps = integers()[self.codes].astype(np.float32) * self.unit
        return step


def coded_steps(step: NDArray[Any]) -> CodedSteps | None:
    """Return float32 steps, not negative, in 8 bits; None where they are few, or that would change one."""
    if step.size < FEWEST or not (top := float(step.max())) or (unit := unit_of_steps(top)) < SMALLEST_UNIT:
        return None
    k = step.astype(np.float64) / unit
    codes = np.minimum(np.searchsorted(integers(), k), 255)
    if (integers()[codes] != k).any():
        return None
    return CodedSteps(codes.astype(np.uint8), np.array(unit, np.float32))


def steps_size(step: NDArray[Any]) -> int:
    """Return the bytes that float32 steps take in a file."""
    coded = coded_steps(step)
    return 4 * step.size if coded is None else coded.nbytes


def integers() -> NDArray[np.int32]:
    """Return the k of each code, int32 [256], ascending."""
    codes = np.arange(256, dtype=np.int32)
    exponent = np.maximum(codes // _HIDDEN - 1, 0)
    k: NDArray[np.int32] = (codes - _HIDDEN * exponent) << exponent
    return k


def unit_of_steps(top: float) -> float:
    """Return the unit of steps of which `top`, above 0, is the largest."""
    return math.ldexp(1.0, math.frexp(top)[1] - 1 - TOP)
