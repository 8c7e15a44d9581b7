"""What the inputs of layers are like, as far as the error of their outputs depends on it.

samples.py    samples to fit to and samples held out, and the moments that layers see of both
collect.py    a model is run on samples, and the moments of its layers' inputs are kept
uses.py       the parameters that operators multiply by, and their channels
operators.py  the operators that multiply by a weight, and which vectors they multiply
"""

from muquant.compression.calibration.collect import collect_moments
from muquant.compression.calibration.samples import in_parts, samples_of, split

__all__ = ["collect_moments", "in_parts", "samples_of", "split"]
