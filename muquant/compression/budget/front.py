"""The plans that are worth having: no other is better in bytes without being worse in noise."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muquant.compression.budget.curve import WidthCurve, WidthPoint

MOST = 2**11
"""Plans that are kept, besides those on the lower hull."""


@dataclass(frozen=True, eq=False)
class Front:
    """Plans in the order of their bytes, which rise as the noise falls.

    Attributes:
        nbytes: of all weights, int64 [plans].
        noise: sum over the weights, float64 [plans].
        bits: uint8 [plans, weights].
    """

    nbytes: NDArray[np.int64]
    noise: NDArray[np.float64]
    bits: NDArray[np.uint8]

    @classmethod
    def of(cls, curves: Iterable[WidthCurve]) -> "Front":
        """Return the plans for weights with these curves; at least one.

        A multiple-choice knapsack, by dynamic programming: the plans for the first weights that are worth
        having, each with every width of the next (Nemhauser, Ullmann, "Discrete dynamic programming and
        capital allocation", 1969). While there are few weights this is exact. Where plans grow too many they
        are thinned, but those on the lower convex hull are kept, which are the optima of noise + price x
        bytes for each price (Sinha, Zoltners, "The multiple-choice knapsack problem", 1979). So the best plan
        for a budget is never further from the optimum than from the next plan on the hull: a step of one
        weight.
        """
        front = cls(np.zeros(1, np.int64), np.zeros(1), np.zeros((1, 0), np.uint8))
        for curve in curves:
            front = front._with(curve.allowed)._thinned()
        return front

    def __len__(self) -> int:
        return len(self.nbytes)

    def within(self, max_bytes: int) -> "Front":
        """Return the plans of at most `max_bytes`; the last one has the least noise."""
        return self._take(self.nbytes <= max_bytes)

    def hull(self) -> "Front":
        """Return the plans on the lower convex hull: the noise falls ever slower from each to the next. The
        first and the last plan are among them."""
        return self._take(self._hull())

    def _with(self, points: Sequence[WidthPoint]) -> "Front":
        """The plans with one weight more, those that are worth having."""
        nbytes = np.add.outer(self.nbytes, np.array([point.nbytes for point in points])).ravel()
        noise = np.add.outer(self.noise, np.array([point.noise for point in points])).ravel()
        order = np.lexsort((noise, nbytes))
        least = np.minimum.accumulate(noise[order])
        kept = order[np.append(True, least[1:] < least[:-1])]
        plans, choices = np.divmod(kept, len(points))
        widths = np.array([point.bits for point in points], np.uint8)
        return Front(nbytes[kept], noise[kept], np.column_stack([self.bits[plans], widths[choices]]))

    def _thinned(self) -> "Front":
        """The best plan in each of `MOST` spans of bytes, and those on the hull."""
        if len(self) <= MOST:
            return self
        span = (self.nbytes - self.nbytes[0]) * MOST // (self.nbytes[-1] - self.nbytes[0] + 1)
        kept = np.append(span[1:] != span[:-1], True)
        kept[self._hull()] = True
        return self._take(kept)

    def _hull(self) -> list[int]:
        nbytes, noise = self.nbytes.tolist(), self.noise.tolist()
        kept: list[int] = []

        def slope(a: int, b: int) -> float:
            fall: float = (noise[b] - noise[a]) / (nbytes[b] - nbytes[a])
            return fall

        for place in range(len(self)):
            while len(kept) > 1 and slope(kept[-2], kept[-1]) >= slope(kept[-1], place):
                kept.pop()
            kept.append(place)
        return kept

    def _take(self, places: Any) -> "Front":
        return Front(self.nbytes[places], self.noise[places], self.bits[places])
