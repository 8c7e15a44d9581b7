"""What belongs to a level, looked up without a search."""

import torch
from torch import Tensor

from muquant.format.law import grid_levels
from muquant.format.spec import MuLawSpec


class Places:
    """The values of floor(2 w / step) that make a difference to which level is nearest to w, in order.

    Levels are integers, so boundaries between them are halves of such.

    Attributes:
        lowest: the value at the first place; all below it belong there too.
        highest: the value at the last place; likewise all above.
    """

    def __init__(self, spec: MuLawSpec) -> None:
        self._levels = grid_levels(spec)[: spec.codes].int()
        borders = self._levels[1:] + self._levels[:-1]  # twice the boundaries
        one = borders.new_ones(1)  # beyond the outermost boundaries one place is enough
        self._widths = torch.cat((one, borders.diff(), one))
        self.lowest, self.highest = int(borders[0]) - 1, int(borders[-1])

    def levels(self) -> Tensor:
        """The level at each place, float32 [places]."""
        return self.spread(self._levels)

    def spread(self, by_code: Tensor) -> Tensor:
        """What is known of each code, at each place: float32 [places]."""
        return by_code.float().repeat_interleave(self._widths)
