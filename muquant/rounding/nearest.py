"""Each weight to its nearest level, on its own."""

from torch import Tensor

from muquant.spec import MuLawSpec
from muquant.tensor import QuantizedTensor, from_rows, nearest_codes, spread, step_of, target, to_rows


def nearest(weight: Tensor, scale: Tensor, spec: MuLawSpec, channel_axis: int) -> QuantizedTensor:
    """Quantize `weight` (float32) with `scale` (`Granularity.step_shape`) to its nearest levels."""
    shape = tuple(weight.shape)
    step = step_of(scale, spec)
    wanted = target(weight, spread(scale, spec, shape, channel_axis), spec)
    codes = nearest_codes(to_rows(wanted, spec, channel_axis), step.reshape(-1, 1), spec)
    return QuantizedTensor(spec, from_rows(codes, spec, shape, channel_axis).contiguous(), step, channel_axis)
