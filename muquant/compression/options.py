"""What `compress`, `plan_widths` and their twins for ONNX files can be asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

from torch import nn

from muquant.compression.calibration.batches import Samples
from muquant.compression.calibration.given import Calibration, read_samples
from muquant.compression.calibration.taken import in_float32, taken_by
from muquant.compression.selection import Override
from muquant.format.spec import MuLawSpec
from muquant.models.arguments import Arguments
from muquant.quantization.observers import observer_class
from muquant.quantization.quantize import choose_rounding
from muquant.quantization.resume import FinishedWeights

RECURRENT_BITS = 8
"""What the weights of LSTM, GRU and RNN have at least where no override says otherwise."""
RECURRENT_NOTE = (
    f"{RECURRENT_BITS} bits, since its layer feeds an error back at every step; an override changes that"
)


@dataclass(frozen=True, kw_only=True, eq=False)
class CompressionOptions:
    """The options of one compression; those four functions take each of them as a keyword of its name.

    Attributes:
        spec: the format; None for the default, 3 bits, mu searched, a scale for each channel.
        flat: whether every weight that no override picks has the width of `spec`; else that is their average.
        layers: which weights to compress, in the forms that the function documents.
        overrides: layers, in the same forms, or "=NAME", one weight -> another width or format. The last one
            that picks a weight counts.
        rounding: a name of `ROUNDINGS`; None for the best that can be had.
        observer: a name of `OBSERVERS`: how scale and mu are chosen.
        calibration: a few samples, 4 or more, in a form of `Calibration`; a quarter of them is held out. None
            for no samples. It is read at once and kept as `Samples`.
        corrections: with samples, whether biases and BatchNorm statistics may make up for errors.
        finished: where each weight is kept once it is done, and taken from where it is there already.

    Raises:
        InputError: a name is unknown, samples are too few, disagree in number or hold NaN or infinity, or
            `rounding` needs samples that are not there.
    """

    spec: MuLawSpec | None = None
    flat: bool = False
    layers: str = "all"
    overrides: Mapping[str, Override] = field(default_factory=dict)
    rounding: str | None = None
    observer: str = "search"
    calibration: Calibration | Samples | None = None
    corrections: bool = True
    finished: FinishedWeights | None = None

    def __post_init__(self) -> None:
        observer_class(self.observer)
        if self.calibration is not None:  # a generator can be read but once
            object.__setattr__(self, "calibration", read_samples(self.calibration))
        _ = self.method
        if self._given is not None and not self._given.lone:
            _ = self.samples  # refuse what is none

    @property
    def format(self) -> MuLawSpec:
        """The format that is meant."""
        return self.spec or MuLawSpec()

    def default_format(self, *, recurrent: bool) -> tuple[MuLawSpec, str]:
        """Return the format of a weight that no override picks, and why it is another than was asked for."""
        if recurrent and self.format.bits < RECURRENT_BITS:
            return self.format.with_bits(RECURRENT_BITS), RECURRENT_NOTE
        return self.format, ""

    @property
    def spreads(self) -> bool:
        """Whether widths are chosen for the weights that no override picks."""
        return not self.flat and self.layers != "auto" and self.format.domain == "decoded"

    @property
    def method(self) -> str:
        """The rounding method that is meant."""
        return choose_rounding(self.rounding, calibrated=self.calibration is not None)

    @cached_property
    def samples(self) -> tuple[Samples, Samples] | None:
        """The samples to fit to, and those held out; None without any. `Samples.batches` is what to run."""
        return None if self._given is None else self._given.split()

    @property
    def _given(self) -> Samples | None:
        return self.calibration if isinstance(self.calibration, Samples) else None

    def taken_by(self, arguments: Arguments) -> Self:
        """Return the options with samples as a model with these arguments takes them: without labels.

        Raises:
            InputError: it cannot be told which of their tensors it takes, or it takes them in no batches.
        """
        return self if self._given is None else replace(self, calibration=taken_by(self._given, arguments))

    def taken_by_module(self, module: nn.Module) -> Self:
        """Return the options with samples as a module in float32 takes them.

        Raises:
            InputError: it cannot be told which of their tensors it takes, or one does not fit in float32.
        """
        if self._given is None:
            return self
        return replace(self, calibration=in_float32(taken_by(self._given, Arguments.of(module))))

    @property
    def are_default(self) -> bool:
        """Whether nothing is asked for that concerns how weights are quantized."""
        asked = self.spec or self.overrides or self.rounding or self.calibration is not None
        return not asked and (self.layers, self.observer) == ("all", "search")
