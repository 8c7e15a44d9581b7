"""What `compress`, `plan_widths` and their twins for ONNX files can be asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

from muquant.compression.calibration.samples import split
from muquant.compression.selection import Override
from muquant.format.spec import MuLawSpec
from muquant.models.calls import Example, Inputs
from muquant.quantization.observers import observer_class
from muquant.quantization.quantize import choose_rounding
from muquant.quantization.resume import FinishedWeights


@dataclass(frozen=True, kw_only=True, eq=False)
class CompressionOptions:
    """The options of one compression; those four functions take each of them as a keyword of its name.

    Attributes:
        spec: the format; None for the default, 3 bits, mu searched, a scale for each channel.
        layers: which weights to compress, in the forms that the function documents.
        overrides: layers, in the same forms, or "=NAME", one weight -> another width or format. The last one
            that picks a weight counts.
        rounding: a name of `ROUNDINGS`; None for the best that can be had.
        observer: a name of `OBSERVERS`: how scale and mu are chosen.
        calibration: a few samples [N, ...], 4 or more; a quarter of them is held out. None for no samples.
        corrections: with samples, whether biases and BatchNorm statistics may make up for errors.
        finished: where each weight is kept once it is done, and taken from where it is there already.

    Raises:
        InputError: a name is unknown, samples are too few, disagree in number or hold NaN or infinity, or
            `rounding` needs samples that are not there.
    """

    spec: MuLawSpec | None = None
    layers: str = "all"
    overrides: Mapping[str, Override] = field(default_factory=dict)
    rounding: str | None = None
    observer: str = "search"
    calibration: Example | None = None
    corrections: bool = True
    finished: FinishedWeights | None = None

    def __post_init__(self) -> None:
        observer_class(self.observer)
        _ = self.method, self.samples  # refuse what is none

    @property
    def format(self) -> MuLawSpec:
        """The format that is meant."""
        return self.spec or MuLawSpec()

    @property
    def method(self) -> str:
        """The rounding method that is meant."""
        return choose_rounding(self.rounding, calibrated=self.calibration is not None)

    @cached_property
    def samples(self) -> tuple[Inputs, Inputs] | None:
        """The samples to fit to, and those held out; None without any."""
        return None if self.calibration is None else split(self.calibration)

    @property
    def are_default(self) -> bool:
        """Whether nothing is asked for that concerns how weights are quantized."""
        asked = self.spec or self.overrides or self.rounding or self.calibration is not None
        return not asked and (self.layers, self.observer) == ("all", "search")
