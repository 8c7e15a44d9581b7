"""How many bytes the weights of a model take, and how many of them compression could not touch."""

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Self


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
