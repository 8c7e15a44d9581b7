"""What the inputs of layers are like, as far as the error of their outputs depends on it."""

from muquant.calibration.collect import collect_moments
from muquant.calibration.moments import Moments

__all__ = ["Moments", "collect_moments"]
