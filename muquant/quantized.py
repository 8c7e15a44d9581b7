"""What quantization makes of one weight."""

from dataclasses import dataclass

from torch import Tensor

from muquant.tensor import QuantizedTensor


@dataclass(frozen=True)
class OutputQuality:
    """The signal-to-quantization-noise ratio of a layer's output on held-out samples, in dB.

    Attributes:
        nearest: with every weight at the level nearest to it; infinite where nothing is lost.
        taken: with what was taken; at least as high.
    """

    nearest: float
    taken: float


@dataclass(frozen=True, eq=False)
class Quantized:
    """A quantized weight, and how it came about.

    Attributes:
        tensor: the weight.
        rounding: name of the method that was the best on held-out samples.
        output: what became of the layer's output; None where its inputs are not known.
        shift: what to add to the layer's bias, float32 [channels]; None where that does not help.
    """

    tensor: QuantizedTensor
    rounding: str = "nearest"
    output: OutputQuality | None = None
    shift: Tensor | None = None
