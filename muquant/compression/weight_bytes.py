"""How many bits and bytes the weights of a model take, and how many of them compression could not touch."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

from muquant.quantization.outcome import WeightSummary


@dataclass(frozen=True)
class AverageBits:
    """How many bits a compressed weight has, over all of them.

    Attributes:
        codes: bits of codes for each number.
        stored: with steps, and the ends of packed bytes.
        narrowest: bits of the narrowest codes.
        widest: of the widest.
    """

    codes: float
    stored: float
    narrowest: int
    widest: int

    @classmethod
    def of(cls, report: Sequence[WeightSummary]) -> Self:
        """Average over the numbers of all weights, of which there is at least one."""
        sizes = [math.prod(weight.shape) for weight in report]
        numbers = max(1, sum(sizes))
        return cls(
            sum(size * weight.bits for size, weight in zip(sizes, report, strict=True)) / numbers,
            8 * sum(weight.nbytes for weight in report) / numbers,
            min(weight.bits for weight in report),
            max(weight.bits for weight in report),
        )

    @property
    def words(self) -> str:
        """The same for people, in a line."""
        if self.narrowest == self.widest:
            return f"{self.widest} bits a weight; {self.stored:.2f} with its share of the steps"
        return (
            f"{self.codes:.2f} bits a weight on average, {self.narrowest} to {self.widest}; "
            f"{self.stored:.2f} with its share of the steps"
        )


@dataclass(frozen=True)
class WeightBytes:
    """Bytes of all floating-point tensors of a model; what else a file holds is not counted.

    Attributes:
        before: as they were.
        after: with codes and steps in the place of the weights that are in few bits.
        left_float: of those that stay float, which are part of both.
    """

    before: int
    after: int
    left_float: int

    @classmethod
    def of(cls, packed: Iterable[tuple[int, int]], left: Iterable[int]) -> Self:
        """Add up.

        Args:
            packed: bytes of each compressed weight, before and after.
            left: bytes of each tensor that stays float.
        """
        compressed, stored = (sum(sizes) for sizes in zip((0, 0), *packed, strict=True))
        kept = sum(left)
        return cls(compressed + kept, stored + kept, kept)

    @property
    def mostly_float(self) -> bool:
        """Whether less than half of the bytes were compressed."""
        return 2 * self.left_float > self.before

    @property
    def words(self) -> str:
        """The same for people, in a line, or in two where less than half was compressed."""
        stays = f"{self.left_float:,} bytes stay float" if self.left_float else "nothing stays float"
        text = f"{self.before:,} bytes of weights before, {self.after:,} after; {stays}"
        if self.mostly_float:
            compressed = self.before - self.left_float
            text += f"\nLess than half was compressed: {compressed:,} of {self.before:,} bytes"
        return text

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values."""
        return {**asdict(self), "mostly_float": self.mostly_float}
