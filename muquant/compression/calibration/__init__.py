"""What the inputs of layers are like, as far as the error of their outputs depends on it.

batches.py    samples in batches; those to fit to and those held out
given.py      samples in every form, read into batches
taken.py      without labels, in the batches that a model takes
samples.py    the moments that layers see of both
watch.py      a model is watched: every product that may be one with a weight
collect.py    a model is run on samples, and the moments of its layers' inputs are kept
abreast.py    the same of the float and of the compressed model, each layer once those in front are done
paused.py     a call of a model that waits before products with its weights
uses.py       the parameters that operators multiply by, and their channels
operators.py  the operators that multiply by a weight, and which vectors they multiply
padding.py    positions of samples that are padding, which are left out
"""

from muquant.compression.calibration.batches import Samples
from muquant.compression.calibration.collect import collect_moments
from muquant.compression.calibration.given import Calibration, read_samples
from muquant.compression.calibration.samples import in_parts, samples_of, split

__all__ = ["Calibration", "Samples", "collect_moments", "in_parts", "read_samples", "samples_of", "split"]
