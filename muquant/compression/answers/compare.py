"""The float model's outputs, kept until the compressed one has answered too."""

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor

from muquant.compression.answers.classes import said
from muquant.compression.answers.distortion import distortion
from muquant.compression.answers.report import AnswersCheck, OutputCheck
from muquant.compression.answers.units import balanced, powers, unit_axis
from muquant.quantization.quality import decibels

B = TypeVar("B")
"""Inputs of one run."""
Outputs = Sequence[tuple[str, Tensor]]
"""Tensors of a result, with their names."""
Run = Callable[[B], Outputs]

SECONDS = 10.0
"""No further batch is begun once the float model has run for so long."""
MEMORY = 2**28
"""Bytes of outputs that are kept."""
_REPEATED = 60.0
"""A model that differs from itself by more than this, in dB, draws random numbers."""


@dataclass(frozen=True, eq=False)
class FloatAnswers(Generic[B]):
    """What a model answered before it was compressed.

    Attributes:
        inputs: what they are, as in `AnswersCheck`.
        count: how many there are.
        batches: the inputs of each run, the outputs, and how many inputs they count for.
        not_checked: why there are none.
    """

    inputs: str = ""
    count: int = 0
    batches: Sequence[tuple[B, Outputs, int]] = ()
    not_checked: str = ""

    @classmethod
    def of(
        cls,
        answered: Iterable[tuple[B, Outputs, int]],
        again: Run[B],
        inputs: str,
        seconds: float = SECONDS,
    ) -> "FloatAnswers[B]":
        """Keep what the float model answers.

        Args:
            answered: the inputs of each run, the outputs, and how many inputs they count for.
                They are taken within `seconds` and `MEMORY`.
            again: runs the float model once more.
            inputs: what they are.
            seconds: after which no further run is begun.
        """
        kept: list[tuple[B, Outputs, int]] = []
        count = nbytes = 0
        start = time.monotonic()
        for batch, outputs, size in answered:
            kept.append((batch, outputs, size))
            count += size
            nbytes += sum(tensor.nbytes for _, tensor in outputs)
            if time.monotonic() - start > seconds or nbytes > MEMORY:
                break
        if not kept:
            return cls(not_checked=f"the model runs on none of the {inputs}; give samples")
        first, exact, _ = kept[0]
        if not exact:
            return cls(not_checked="the model returns no tensors")
        sqnr = _compared([exact], [again(first)]).sqnr
        if sqnr is not None and sqnr < _REPEATED:
            return cls(not_checked="the model answers the same inputs differently each time")
        return cls(inputs, count, kept)

    def distortion(self, run: Run[B], most: int | None = None) -> float:
        """Run another model on the same inputs, and return the mean of `distortion` over runs and outputs;
        0 where no output can be compared.

        Args:
            run: runs it.
            most: of the inputs, after which no further run is begun; None for all.
        """
        figures: list[float] = []
        done = 0
        for batch, exact, size in self.batches:
            if most is not None and done >= most:
                break
            pairs = zip(exact, run(batch), strict=True)
            found = (distortion(name, before, after) for (name, before), (_, after) in pairs)
            figures += [figure for figure in found if figure is not None]
            done += size
        return statistics.fmean(figures) if figures else 0.0

    def beside(self, run: Run[B]) -> AnswersCheck:
        """Run the compressed model on the same inputs, and compare."""
        if self.not_checked:
            return AnswersCheck(not_checked=self.not_checked)
        outputs = _compared(
            [exact for _, exact, _ in self.batches], (run(batch) for batch, _, _ in self.batches)
        )
        if outputs.sqnr is None and outputs.agreement is None:
            return AnswersCheck(
                not_checked=f"no output can be compared on {self.inputs}: {_why_not(outputs)}"
            )
        return AnswersCheck(self.inputs, self.count, outputs.outputs)


def _why_not(found: AnswersCheck) -> str:
    if any(output.other_shapes for output in found.outputs):
        return "its shape depends on what the model answers"
    return "the float model answers NaN or nothing"


def _compared(exact: Iterable[Outputs], found: Iterable[Outputs]) -> AnswersCheck:
    sums: list[_Sums] = []
    for one, other in zip(exact, found, strict=True):
        if not sums:
            sums = [
                _Sums(name or (f"output {place}" if len(one) > 1 else "output"), tuple(tensor.shape))
                for place, (name, tensor) in enumerate(one)
            ]
        for own, (_, before), (_, after) in zip(sums, one, other, strict=True):
            own.add(before, after)
    return AnswersCheck(outputs=tuple(own.check() for own in sums))


@dataclass
class _Sums:
    """What has been seen of one output."""

    name: str
    shape: tuple[int, ...]
    signal: float = 0.0
    noise: float = 0.0
    units: "_Units | None" = None
    values: int = 0
    equal: int = 0
    answers: int = 0
    other_shapes: int = 0

    def add(self, exact: Tensor, found: Tensor) -> None:
        if exact.shape != found.shape:
            self.other_shapes += 1
            return
        if exact.is_complex():
            exact, found = torch.view_as_real(exact), torch.view_as_real(found)
        answers: tuple[Tensor, Tensor] | None = (exact, found)
        if exact.is_floating_point():
            answers = said(self.name, exact, found)
            self._add_noise(exact, found)
            if answers is None:
                self._add_units(exact, found)
        if answers is not None:
            self.equal += int(torch.count_nonzero(answers[0] == answers[1]))
            self.answers += answers[0].numel()

    def _add_noise(self, exact: Tensor, found: Tensor) -> None:
        """Places where the float model answers NaN tell nothing; the same infinity in both is right."""
        tells = ~exact.isnan() & ~(exact.isinf() & (exact == found))
        exact, found = exact[tells].double(), found[tells].double()
        noise = float((found - exact).square().sum())
        self.signal += float(exact.square().sum())
        self.noise += math.inf if math.isnan(noise) else noise
        self.values += exact.numel()

    def _add_units(self, exact: Tensor, found: Tensor) -> None:
        tells = exact.isfinite()
        exact, found = torch.where(tells, exact, 0.0), torch.where(tells, found, 0.0)
        if self.units is None:
            self.units = _Units(unit_axis(exact))
        self.units.add(exact, found)

    def check(self) -> OutputCheck:
        return OutputCheck(
            self.name,
            self.shape,
            self._sqnr() if self.values else None,
            self.equal / self.answers if self.answers else None,
            self.other_shapes,
        )

    def _sqnr(self) -> float:
        if not self.noise:
            return math.inf
        if not self.signal or not math.isfinite(self.noise):
            return -math.inf
        whole = decibels(self.signal, self.noise)
        return whole if self.units is None else min(whole, self.units.sqnr())


@dataclass
class _Units:
    """Powers of an output's units, see `unit_axis`; none without an axis, or if sizes change along it."""

    axis: int | None
    signal: Tensor | None = None
    noise: Tensor | None = None

    def add(self, exact: Tensor, found: Tensor) -> None:
        if self.axis is None:
            return
        signal, noise = powers(exact, self.axis), powers(exact - found, self.axis)
        if self.signal is None or self.noise is None:
            self.signal, self.noise = signal, noise
        elif len(signal) == len(self.signal):
            self.signal, self.noise = self.signal + signal, self.noise + noise
        else:
            self.axis = None

    def sqnr(self) -> float:
        """In dB; infinite where there are no units."""
        if self.axis is None or self.signal is None or self.noise is None:
            return math.inf
        return decibels(1.0, balanced(self.signal, self.noise))
