"""What the inputs of layers are like, as far as the error of their outputs depends on it."""

from muquant.calibration.collect import collect_moments
from muquant.calibration.moments import Moments
from muquant.calibration.samples import Samples, samples_of

__all__ = ["Moments", "Samples", "collect_moments", "samples_of"]
