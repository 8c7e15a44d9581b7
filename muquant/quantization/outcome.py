"""What quantization makes of one weight, and what is said of it."""

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from muquant.format.spec import Domain
from muquant.format.tensor import QuantizedTensor
from muquant.quantization.quality import weight_sqnr


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
class Outcome:
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

    def summary(self, name: str, weight: Tensor, not_calibrated: str = "") -> dict[str, Any]:
        """Return the fields of `WeightSummary` for float32 `weight`, which became this."""
        tensor, output = self.tensor, self.output
        return {
            "name": name,
            "shape": tensor.shape,
            "bits": tensor.spec.bits,
            "domain": tensor.spec.domain,
            "mu": float(tensor.spec.mu),
            "sqnr": weight_sqnr(weight, tensor),
            "rounding": self.rounding,
            "nearest_output_sqnr": None if output is None else finite(output.nearest),
            "output_sqnr": None if output is None else finite(output.taken),
            "bias_corrected": self.shift is not None,
            "nbytes": tensor.nbytes,
            "not_calibrated": not_calibrated,
        }


@dataclass(frozen=True, kw_only=True)
class WeightSummary:
    """What compression did to one weight.

    Attributes:
        name: of the weight; of a module its path.
        shape: its shape.
        bits: width of a code.
        domain: "decoded" or "mapped".
        mu: companding parameter.
        sqnr: signal-to-quantization-noise ratio in dB; None where nothing was lost or the weight is all zero.
        rounding: the method that was taken.
        nearest_output_sqnr: the same ratio of the layer's output on held-out samples, in dB, had every weight
            gone to its nearest level; None without samples, or where nothing was lost.
        output_sqnr: likewise with what was taken. Neither is known after the whole network was tuned.
        bias_corrected: whether the layer's bias makes up for the mean of the error.
        nbytes: bytes of packed codes and steps.
        not_calibrated: why its codes do not follow the samples although there are some, such as that nothing
            is known of the layer's inputs; "" where they do, or there are none.
        note: why its format is another than was asked for, or "".
    """

    name: str
    shape: tuple[int, ...]
    bits: int
    domain: Domain
    mu: float
    sqnr: float | None
    rounding: str
    nearest_output_sqnr: float | None
    output_sqnr: float | None
    bias_corrected: bool
    nbytes: int
    not_calibrated: str = ""
    note: str = ""


def finite(ratio: float) -> float | None:
    """Return a ratio as reports write it: None where nothing was lost."""
    return ratio if math.isfinite(ratio) else None
