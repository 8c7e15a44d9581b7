"""How sensitive a layer is to quantization: norms of its error, and what they say about the network."""

from muquant.sensitivity.convolution import convolution_norms
from muquant.sensitivity.layer import Shape, input_shapes, layer_norms
from muquant.sensitivity.norms import Norms, matrix_norms
from muquant.sensitivity.quality import weight_sqnr
from muquant.sensitivity.widths import CRITERION, Choice, Trial, candidates

__all__ = [
    "CRITERION",
    "Choice",
    "Norms",
    "Shape",
    "Trial",
    "candidates",
    "convolution_norms",
    "input_shapes",
    "layer_norms",
    "matrix_norms",
    "weight_sqnr",
]
