"""One weight, from float to codes: observe, then round."""

from torch import Tensor

from muquant.observers import observer_class
from muquant.rounding import rounding_method
from muquant.spec import MuLawSpec
from muquant.tensor import QuantizedTensor


def quantize(
    weight: Tensor, spec: MuLawSpec, channel_axis: int, observer: str, rounding: str
) -> QuantizedTensor:
    """Return `weight` (float32, any shape) in the format `spec`.

    Args:
        weight: what to quantize; it is not changed.
        spec: the format; a mu of "auto" is chosen by the observer.
        channel_axis: the weight's axis of output channels.
        observer: a name of `OBSERVERS`: how scale and mu are chosen.
        rounding: a name of `ROUNDINGS`.

    Raises:
        InputError: the weight holds NaN or infinity, or a name is unknown.
    """
    watch = observer_class(observer)(spec, channel_axis)
    watch(weight)
    scale, mu = watch.calculate_qparams()
    return rounding_method(rounding)(weight.detach(), scale, spec.with_mu(float(mu)), channel_axis)
