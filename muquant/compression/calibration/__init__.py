"""What the inputs of layers are like, as far as the error of their outputs depends on it."""

from muquant.compression.calibration.collect import collect_moments
from muquant.compression.calibration.samples import in_parts, samples_of, split
from muquant.quantization.moments import Moments, MomentSums, Samples

__all__ = ["MomentSums", "Moments", "Samples", "collect_moments", "in_parts", "samples_of", "split"]
