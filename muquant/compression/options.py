"""What `compress`, `plan_widths` and their twins for ONNX files can be asked for."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Self

from torch import nn

from muquant.base.errors import InputError
from muquant.base.registry import look_up
from muquant.compression.calibration.batches import Samples
from muquant.compression.calibration.given import Calibration, read_samples
from muquant.compression.calibration.taken import in_float32, taken_by
from muquant.compression.selection import Layers, Override
from muquant.format.spec import MuLawSpec
from muquant.models.arguments import Arguments
from muquant.quantization.observers import observer_class
from muquant.quantization.quantize import choose_rounding
from muquant.quantization.resume import FinishedWeights
from muquant.quantization.rounding import BLIND, ROUNDINGS, refinements

TUNED = "tuned"
"""The rounding that goes on from the best of `ROUNDINGS`: a short distillation of the whole network."""
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
        rounding: a name of `ROUNDINGS`, or `TUNED`; None for the best that can be had without training.
        max_seconds: how long tuning may take; None for as long as its steps take.
        observer: a name of `OBSERVERS`: how scale and mu are chosen.
        calibration: a few samples, 4 or more, in a form of `Calibration`; a quarter of them is held out. None
            for no samples. It is read at once and kept as `Samples`.
        synthetic: whether inputs that are made up stand for samples, where there are none and widths are
            chosen; see `makes_up`.
        corrections: with samples, whether biases and BatchNorm statistics may make up for errors.
        finished: where each weight is kept once it is done, and taken from where it is there already.

    Raises:
        InputError: a name is unknown, samples are too few, disagree in number or hold NaN or infinity, or
            `rounding` needs samples that are not there, or does not go with the rest.
    """

    spec: MuLawSpec | None = None
    flat: bool = False
    layers: Layers = "all"
    overrides: Mapping[str, Override] = field(default_factory=dict)
    rounding: str | None = None
    max_seconds: float | None = None
    observer: str = "search"
    calibration: Calibration | Samples | None = None
    synthetic: bool = True
    corrections: bool = True
    finished: FinishedWeights | None = None

    def __post_init__(self) -> None:
        observer_class(self.observer)
        if self.calibration is not None:  # a generator can be read but once
            object.__setattr__(self, "calibration", read_samples(self.calibration))
        if self.rounding is not None:
            look_up("rounding", self.rounding, {**ROUNDINGS, TUNED: None})
        if self.tuned and self.format.domain != "decoded":
            raise InputError(
                f'rounding "{TUNED}" trains a network towards what it was, which domain "mapped" changes; '
                'take domain "decoded"'
            )
        if self.max_seconds is not None and (not self.tuned or not self.max_seconds > 0):
            raise InputError(
                f"max_seconds is {self.max_seconds:g} and rounding {self.rounding or 'not given'}; expected "
                f'a number above 0, and rounding "{TUNED}", whose training it bounds'
            )
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
    def makes_up(self) -> bool:
        """Whether inputs are to be made up in the place of samples."""
        return self.synthetic and self.calibration is None and self.spreads and self.rounding is None

    @property
    def made_up(self) -> bool:
        """Whether the samples were made up."""
        return self._given is not None and self._given.made_up

    def with_widths(self, widths: Mapping[str, int]) -> Self:
        """The options of a trial of widths by the names of weights that no override picks; rounded alone."""
        own = {f"={name}": width for name, width in widths.items()}
        return replace(self.untuned, overrides={**self.overrides, **own})

    @property
    def refines(self) -> bool:
        """Whether samples of what the network is for decide how weights are rounded."""
        return self._given is not None and not self.made_up and bool(refinements(self.method))

    @property
    def in_turn(self) -> bool:
        """Whether layers are calibrated one after the other: on what the network is for, and towards what it
        was, which the mapped domain changes."""
        return not self.made_up and self.format.domain == "decoded"

    @property
    def corrects(self) -> bool:
        """Whether biases may make up for the means of errors: those on made-up inputs are no others'."""
        return self.corrections and not self.made_up

    @property
    def method(self) -> str:
        """The rounding method that is meant; before tuning the best that there is."""
        if self.tuned and self.calibration is None:
            raise InputError(
                f'rounding "{TUNED}" trains on samples; give a calibration, or take rounding "{BLIND}"'
            )
        if self.tuned:
            return choose_rounding(None, calibrated=True)
        if self.rounding is None and self.calibration is None and self.observer != "search":
            return "nearest"  # steps that were asked for stay
        return choose_rounding(self.rounding, calibrated=self.calibration is not None)

    @property
    def tuned(self) -> bool:
        """Whether the network is trained once its weights are in few bits."""
        return self.rounding == TUNED

    @property
    def untuned(self) -> Self:
        """The options of plans that are tried, which are rounded alone."""
        return replace(self, rounding=None, max_seconds=None) if self.tuned else self

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
