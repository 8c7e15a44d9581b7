"""What a check of the answers found, and what to say of it."""

import math
import warnings
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

from muquant.quantization.outcome import finite

HELD_OUT, EXAMPLE, SYNTHETIC = "held-out samples", "the example", "synthetic inputs"
"""What a check can be on."""
FIT = "samples to fit to"
"""What widths may be chosen on beside the example and synthetic inputs."""
MIN_SQNR, MIN_AGREEMENT = 10.0, 0.9
"""What is worth a warning below, in dB and as a share."""
_FEW = 3
"""Outputs that a warning names."""
WAYS_OUT = (
    "calibration=samples",
    "MuLawSpec(4), or overrides= for some layers",
    "plan_widths or plan_onnx, max_drop=",
)
"""How samples, more bits and a budget are asked for in Python."""


class AnswersWarning(UserWarning):
    """A compressed model no longer answers like the float one."""


@dataclass(frozen=True)
class OutputCheck:
    """One output of the compressed model beside the float model's.

    Attributes:
        name: of the output; "output 0" and so on where it has none.
        shape: of it, on the first inputs.
        sqnr: of all its values, in dB; or the mean over its units, as boxes and scores are, where some are
            far weaker than others and that mean is less (`unit_axis`, `balanced`). Infinite where nothing was
            lost, minus infinity where the compressed model answers NaN or infinity and the float one does
            not, or all zeros were right. None for what is no floating point, and where there is nothing to
            compare.
        agreement: the share of equal answers where it looks like logits, see `said`, and
            of equal values where it is no floating point; else None.
        other_shapes: inputs, or batches of them, on which its shape differs, as behind a non-maximum
            suppression; nothing else is known of them.
    """

    name: str
    shape: tuple[int, ...]
    sqnr: float | None
    agreement: float | None
    other_shapes: int = 0

    @property
    def decibels(self) -> str:
        """`sqnr` for people: "21.3 dB", "nothing lost", "nothing left", or "-" for None."""
        if self.sqnr is None:
            return "-"
        if math.isinf(self.sqnr):
            return "nothing lost" if self.sqnr > 0 else "nothing left"
        return f"{self.sqnr:.1f} dB"

    @property
    def percent(self) -> str:
        """`agreement` for people, such as "98.4 %", or "-"; rounded down: only all of them are 100 %."""
        return "-" if self.agreement is None else f"{math.floor(1000 * self.agreement) / 10:g} %"


@dataclass(frozen=True)
class AnswersCheck:
    """A compressed model's answers beside the float model's, on the same inputs.

    Attributes:
        inputs: what both ran on: "held-out samples", "the example" or "synthetic inputs"; "" for nothing.
        count: how many of them.
        outputs: one entry for each tensor of the result.
        not_checked: why nothing was compared; "" where it was.
    """

    inputs: str = ""
    count: int = 0
    outputs: tuple[OutputCheck, ...] = ()
    not_checked: str = ""

    @property
    def sqnr(self) -> float | None:
        """The worst of all outputs, in dB; None where none has any."""
        return _least(output.sqnr for output in self.outputs)

    @property
    def agreement(self) -> float | None:
        """The worst share of equal answers; None where none has any."""
        return _least(output.agreement for output in self.outputs)

    def passes(self, min_sqnr: float = MIN_SQNR, min_agreement: float = MIN_AGREEMENT) -> bool:
        """Whether something was compared, and nothing is below these, in dB and as a share."""
        return not self.not_checked and not self.below(min_sqnr, min_agreement)

    def below(self, min_sqnr: float = MIN_SQNR, min_agreement: float = MIN_AGREEMENT) -> str:
        """Say which figures are below these, such as "logits: 6.1 dB, wanted 10"; "" where none is."""
        low = []
        for output in self.outputs:
            figures = []
            if output.sqnr is not None and output.sqnr < min_sqnr:
                figures.append(f"{output.decibels}, wanted {min_sqnr:g}")
            if output.agreement is not None and output.agreement < min_agreement:
                figures.append(f"{output.percent} of its answers equal, wanted {100 * min_agreement:g}")
            if figures:
                low.append(f"{output.name}: {', '.join(figures)}")
        more = [f"and {len(low) - _FEW} more outputs"] if len(low) > _FEW else []
        return "; ".join([*low[:_FEW], *more])

    def warning(self, ways_out: tuple[str, str, str] = WAYS_OUT) -> str:
        """Say that the answers are no longer alike and what to do; "" where they are, or are not known.

        Args:
            ways_out: how to ask for samples, for more bits and for a budget.
        """
        low = self.below()
        if not low:
            return ""
        samples, bits, budget = ways_out
        more = "more samples" if self.inputs == HELD_OUT else "samples of what it will see"
        doubt = (
            ""
            if self.inputs != SYNTHETIC
            else f"; these are {self._on}, and your data may do better or worse"
        )
        return (
            f"the compressed model no longer answers like yours ({low}{doubt}). Three ways out: {more} "
            f"({samples}), more bits ({bits}), or a budget by changed answers ({budget})"
        )

    def warn(self) -> None:
        """Give an `AnswersWarning` where there is one to give, in the name of the caller's caller."""
        text = self.warning()
        if text:
            warnings.warn(text, AnswersWarning, stacklevel=3)

    @property
    def words(self) -> str:
        """What was found, in a line."""
        if self.not_checked:
            return f"Answers not checked: {self.not_checked}"
        worst = OutputCheck("", (), self.sqnr, self.agreement)
        figures = [] if worst.sqnr is None else [worst.decibels]
        if worst.agreement is not None:
            figures.append(f"{worst.percent} of the answers equal")
        if len(self.outputs) > 1:
            figures.append("the worst of all outputs")
        doubt = ""
        if self.inputs == SYNTHETIC:
            doubt = "; random numbers are not your data: give samples for a true figure"
        return f"Answers beside the float model's, on {self._on}: {', '.join(figures)}{doubt}"

    @property
    def _on(self) -> str:
        return self.inputs if self.inputs == EXAMPLE else f"{self.count} {self.inputs}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON values. Infinite figures are None there: `lossless` is true for plus infinity,
        false for minus, and None where there is none."""
        document = asdict(self)
        for output in document["outputs"]:
            sqnr = output["sqnr"]
            output["lossless"] = None if sqnr is None else sqnr == math.inf
            output["sqnr"] = None if sqnr is None else finite(sqnr)
        return {
            **document,
            "sqnr": None if self.sqnr is None else finite(self.sqnr),
            "agreement": self.agreement,
            "good": None if self.not_checked else self.passes(),
        }


def _least(figures: Iterable[float | None]) -> float | None:
    return min((each for each in figures if each is not None), default=None)
