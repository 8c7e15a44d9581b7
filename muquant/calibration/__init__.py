"""What the inputs of layers are like, as far as the error of their outputs depends on it."""

from muquant.calibration.collect import collect_moments
from muquant.calibration.moments import Moments, MomentSums
from muquant.calibration.samples import Samples, in_parts, samples_of, split

__all__ = ["MomentSums", "Moments", "Samples", "collect_moments", "in_parts", "samples_of", "split"]
