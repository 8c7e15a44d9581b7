"""A compressed weight that can be trained on, from its codes and back to codes."""

import torch
from torch import Tensor, nn

from muquant.format.law import grid_levels
from muquant.format.rows import spread
from muquant.format.tensor import QuantizedTensor
from muquant.quantization.fake_quantize import LOG_ZERO, MuLawFakeQuantize


class LatentWeight(nn.Module):
    """A weight that decodes as its start does, until it is trained; steps are learned too, mu is not.

    Attributes:
        unit: the float weight behind the codes, in units of its scales: a learning rate means the same for
            every row.
        log_scale: logarithms of the scales, `Granularity.step_shape`.
        inputs: how many of its numbers add up to an output.

    Args:
        start: the weight in few bits, in the decoded domain.
        weight: the float weight, of the same shape. Each number starts in the cell of its code, as near to
            this as the cell goes.
    """

    _scale: Tensor

    def __init__(self, start: QuantizedTensor, weight: Tensor) -> None:
        super().__init__()
        spec, channels = start.spec, start.channels
        scale = start.step.double() * spec.grid_max
        self._fake = MuLawFakeQuantize(spec, channels)
        self._fake.spec = spec  # its steps too
        self._fake.disable_observer()
        log_scale = scale.log().clamp(min=LOG_ZERO).float()
        self.log_scale = self._fake.log_scale = nn.Parameter(log_scale)  # type: ignore[assignment]
        self.register_buffer("_scale", spread(scale.float(), spec, start.shape, channels))
        unit = torch.where(self._scale > 0, weight / self._scale, 0.0)
        self.inputs = channels.inputs(start.shape)
        self.unit = nn.Parameter(_in_cell(unit, start))

    def forward(self) -> Tensor:
        """The decoded weight."""
        decoded: Tensor = self._fake(self.unit * self._scale)
        return decoded

    @torch.no_grad()
    def quantized(self) -> QuantizedTensor:
        """The weight in few bits, as it stands; it decodes to `forward`'s output."""
        return self._fake.quantize(self.unit * self._scale)


def _in_cell(unit: Tensor, start: QuantizedTensor) -> Tensor:
    """Move numbers, in units of their scales, into the cells of their codes."""
    spec = start.spec
    levels = grid_levels(spec).double()
    written = levels[: spec.codes]
    between = (written[1:] + written[:-1]) / 2
    ends = levels.new_tensor([spec.grid_max])
    low, high = torch.cat((-ends, between)), torch.cat((between, ends))
    margin = _MARGIN * (high - low)
    low, high = (low + margin) / spec.grid_max, (high - margin) / spec.grid_max
    low[0], high[-1] = -1.0, 1.0  # beyond the last level no gradient passes
    places = start.codes.long().clamp(max=spec.codes - 1)
    return torch.minimum(torch.maximum(unit, low.float()[places]), high.float()[places])


_MARGIN = 0.05
"""How far from its ends a number starts in a cell, as a share of it."""
