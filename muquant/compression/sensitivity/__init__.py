"""How sensitive a layer is to quantization: norms of its error, and what they say about the network."""

from muquant.compression.auto import CRITERION, Choice, Trial, candidates
from muquant.compression.sensitivity.convolution import convolution_norms
from muquant.compression.sensitivity.layer import Shape, input_shapes, layer_norms
from muquant.compression.sensitivity.norms import Norms, matrix_norms
from muquant.quantization.quality import weight_sqnr

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
