"""What compression did to an ONNX file."""

from dataclasses import dataclass

from muquant.spec import Domain
from muquant_onnx.lowering import Policy, Served


@dataclass(frozen=True)
class WeightReport:
    """What compression did to one weight.

    Attributes:
        name: of the weight in the new file, as `decode_file` and `Served` name it.
        source: its name in the file that it comes from.
        shape: its shape, as it is stored.
        bits: width of a code.
        domain: "decoded" or "mapped".
        mu: companding parameter.
        sqnr: signal-to-quantization-noise ratio in dB; None where nothing was lost or the weight is all zero.
        rounding: the method that was taken.
        nearest_output_sqnr: the same ratio of the layer's output on held-out samples, in dB, had every weight
            gone to its nearest level; None without samples, or where nothing was lost.
        output_sqnr: likewise with the codes that were taken.
        bias_corrected: whether the layer's bias makes up for the mean of the error.
        nbytes: bytes of packed codes and steps.
        source_nbytes: bytes of the weight in the type in which it was stored.
        served: how each of its uses is served.
    """

    name: str
    source: str
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
    source_nbytes: int
    served: tuple[Served, ...]


@dataclass(frozen=True)
class LeftAlone:
    """A tensor that stays as it is.

    Attributes:
        name: of the tensor.
        consumer: operator that uses it.
        reason: why, such as "a recurrent weight".
    """

    name: str
    consumer: str
    reason: str


@dataclass(frozen=True)
class CompressReport:
    """The outcome of `compress_onnx`.

    Attributes:
        path: of the file that was written.
        nbytes: its size, external data included.
        source_nbytes: size of the file that it was made from, external data that it uses included.
        data_path: of the external data, or None where there is none.
        policy: that was asked for.
        weights: what was compressed, in the order in which the graph uses it.
        left_alone: what was not, and why.
    """

    path: str
    nbytes: int
    source_nbytes: int
    data_path: str | None
    policy: Policy
    weights: tuple[WeightReport, ...]
    left_alone: tuple[LeftAlone, ...]
