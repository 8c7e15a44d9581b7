"""What compression did to an ONNX file."""

from dataclasses import dataclass

from muquant.compression.answers.report import AnswersCheck
from muquant.compression.tuning import TuningReport
from muquant.compression.weight_bytes import AverageBits, WeightBytes
from muquant.quantization.outcome import WeightSummary
from muquant_onnx.lowering.lower import Policy, Served


@dataclass(frozen=True, kw_only=True)
class WeightReport(WeightSummary):
    """What compression did to one weight of a graph, named as `decode_file` and `Served` name it.

    Attributes:
        source: its name in the file that it comes from.
        source_nbytes: bytes of the weight in the type in which it was stored.
        served: how each of its uses is served.
    """

    source: str
    source_nbytes: int
    served: tuple[Served, ...]


@dataclass(frozen=True)
class LeftAlone:
    """A tensor that stays as it is.

    Attributes:
        name: of the tensor.
        consumer: operator that uses it; "" where none does.
        reason: why, such as "it is a scalar".
        nbytes: bytes of its floating-point numbers in the file that it comes from; 0 where it has none there:
            it is computed, an input, or of integers.
    """

    name: str
    consumer: str
    reason: str
    nbytes: int


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
        left_alone: what was not, and why, the most bytes first. Each floating-point constant of the source is
            once among `weights` or here.
        raised_from: the opset that the source had, where that was below 13 and was raised to it; else None.
        zero_inputs: states of the graph that calibration samples did not give, which were zero while it ran.
        synthetic: how many inputs were made up to stand for samples; 0 for none.
        answers: how alike the file answers to the source; None where that was not asked.
        tuning: how the training of the whole went; None where that was not asked.
    """

    path: str
    nbytes: int
    source_nbytes: int
    data_path: str | None
    policy: Policy
    weights: tuple[WeightReport, ...]
    left_alone: tuple[LeftAlone, ...]
    raised_from: int | None = None
    zero_inputs: tuple[str, ...] = ()
    answers: AnswersCheck | None = None
    tuning: TuningReport | None = None
    synthetic: int = 0

    @property
    def average_bits(self) -> AverageBits:
        """Bits that a compressed weight has on average."""
        return AverageBits.of(self.weights)

    @property
    def weight_bytes(self) -> WeightBytes:
        """Bytes of all weights before, in the source's types, and after, and of those that stay float."""
        packed = ((weight.source_nbytes, weight.nbytes) for weight in self.weights)
        return WeightBytes.of(packed, (each.nbytes for each in self.left_alone))
