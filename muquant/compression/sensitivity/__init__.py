"""How sensitive a layer is to quantization: norms of its weight's error.

norms.py        norms of a weight as a matrix
convolution.py  norms of a convolution, as a map from all of its input to all of its output
layer.py        norms of a weight in its layer, whatever that is
calls.py        what layers are called with inside a network, and what they compute without their bias
"""

from muquant.compression.sensitivity.convolution import convolution_norms
from muquant.compression.sensitivity.layer import Shape, input_shapes, layer_norms
from muquant.compression.sensitivity.norms import Norms, matrix_norms

__all__ = ["Norms", "Shape", "convolution_norms", "input_shapes", "layer_norms", "matrix_norms"]
