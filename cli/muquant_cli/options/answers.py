"""`--min-sqnr`, `--min-agreement` and `--no-check`: how alike a compressed model has to answer."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import click

from muquant import AnswersCheck
from muquant.base.errors import InputError
from muquant_cli.output import Output

WAYS_OUT = ("--calibration", "--bits 4, or 3,REGEX=8 for some layers", "--max-drop")


def answers_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the check."""
    for option in reversed(
        (
            click.option(
                "--check/--no-check",
                default=True,
                help="Run the float and the compressed model on held-out samples, on an example or on "
                "made-up inputs, and tell how alike they answer.",
            ),
            click.option(
                "--min-sqnr",
                metavar="DB",
                help="End with status 1 where an output of the compressed model has less, in dB.",
            ),
            click.option(
                "--min-agreement",
                metavar="PERCENT",
                help="End with status 1 where fewer answers are equal, in percent, or as a share up to 1.",
            ),
        )
    ):
        function = option(function)
    return function


@dataclass(frozen=True)
class Wanted:
    """What was asked for.

    Attributes:
        check: whether the answers are looked at.
        min_sqnr: in dB; None where nothing is asked.
        min_agreement: as a share; likewise.
    """

    check: bool
    min_sqnr: float | None
    min_agreement: float | None

    @classmethod
    def read(cls, check: bool, min_sqnr: str | None, min_agreement: str | None) -> Self:
        """Read the options.

        Raises:
            InputError: one is no such number, or the check is switched off and asked for at once.
        """
        if not check and (min_sqnr, min_agreement) != (None, None):
            raise InputError("--no-check looks at no answers, and --min-sqnr and --min-agreement ask for it")
        share = None
        if min_agreement is not None:
            share = _number("--min-agreement", min_agreement.removesuffix("%"), "percent from 0 to 100")
            if not 0 <= share <= 100:
                raise InputError(f"--min-agreement is {min_agreement}; expected percent from 0 to 100")
            share = share if share <= 1 and not min_agreement.endswith("%") else share / 100
        sqnr = None if min_sqnr is None else _number("--min-sqnr", min_sqnr, "a number of dB, such as 20")
        return cls(check, sqnr, share)

    def show(self, output: Output, answers: AnswersCheck | None) -> dict[str, Any]:
        """Say what the check found, and return the same as a document."""
        if answers is None:
            return {"answers": None}
        if len(answers.outputs) > 1 or any(each.other_shapes for each in answers.outputs):
            rows = [
                (
                    each.name,
                    "x".join(map(str, each.shape)),
                    each.decibels,
                    each.percent,
                    f"in {each.other_shapes} runs" if each.other_shapes else "",
                )
                for each in answers.outputs
            ]
            output.table("Answers", ("output", "shape", "SQNR", "equal", "other shapes"), rows)
        output.say(answers.words)
        warning = answers.warning(WAYS_OUT)
        if warning:
            output.say(f"Warning: {warning}")
        return {"answers": {**answers.to_dict(), "warning": warning or None}}

    def missed(self, answers: AnswersCheck | None) -> str:
        """Say what is not as it has to be; "" where all is."""
        if answers is None:
            return ""
        asked = {
            "--min-sqnr": (self.min_sqnr, answers.sqnr),
            "--min-agreement": (self.min_agreement, answers.agreement),
        }
        found = [
            f"{option}: {answers.words if answers.not_checked else 'no output is one to measure so'}"
            for option, (least, figure) in asked.items()
            if least is not None and figure is None
        ]
        low = answers.below(
            -math.inf if self.min_sqnr is None else self.min_sqnr,
            0.0 if self.min_agreement is None else self.min_agreement,
        )
        return "; ".join([*found, *([low] if low else [])])


def _number(option: str, text: str, expected: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise InputError(f"{option} is {text!r}; expected {expected}")
    return number
