"""`muquant compress` within a budget: `--max-bytes`, `--max-drop`, and plans that are read again."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

import click

from muquant import Plan, read_plan
from muquant.base.errors import InputError
from muquant.base.files import scratch_folder
from muquant.base.text import byte_size
from muquant.compression.budget import WidthCurve
from muquant.compression.budget.limits import Limits
from muquant.compression.budget.measure import OnStep
from muquant.compression.options import CompressionOptions
from muquant_cli.output import Output

UNITS = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_HEADER = ("weight", "bits", "size", "SQNR dB", "of", "of all noise", "last", "next")


def budget_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that choose a width for each weight."""
    for option in reversed(
        (
            click.option(
                "--max-bytes",
                metavar="SIZE",
                help="Choose widths so that all packed weights take at most so much, such as 500kB or "
                "1.2MiB; what stays float, and the rest of a file, is not counted. Of --bits only the widths "
                "by REGEX count then.",
            ),
            click.option(
                "--max-drop",
                type=float,
                metavar="POINTS",
                help="Choose the narrowest widths with which at most so many percent of the answers to "
                "held-out samples are to be expected to change; needs --calibration.",
            ),
            click.option(
                "--plan",
                type=click.Path(path_type=Path),
                help="Take layers and widths from a plan, as it was written beside an output or edited.",
            ),
        )
    ):
        function = option(function)
    return function


@dataclass(frozen=True)
class Budget:
    """What was asked for.

    Attributes:
        max_bytes: limit of `plan_widths`, or None.
        max_drop: limit of `plan_widths`, or None.
        plan: a plan that was read, in place of the limits.
    """

    max_bytes: int | None
    max_drop: float | None
    plan: Plan | None

    @classmethod
    def read(
        cls, max_bytes: str | None, max_drop: float | None, plan: Path | None, bits: str, layers: str
    ) -> Self:
        """Read the options.

        Raises:
            InputError: one cannot be read, or another option says the same.
        """
        size = None if max_bytes is None else parse_size(max_bytes)
        if plan is None:
            return cls(size, max_drop, None)
        if size is not None or max_drop is not None:
            raise InputError("--plan names the widths, and --max-bytes and --max-drop choose them; give one")
        if (bits, layers) != ("3", "all"):
            raise InputError("--plan names the layers and widths; leave out --bits and --layers")
        return cls(None, None, read_plan(plan))

    def follow(
        self,
        output: Output,
        out: Path,
        options: CompressionOptions,
        make: Callable[[Limits, CompressionOptions, OnStep], Plan],
    ) -> tuple[CompressionOptions, Plan | None]:
        """Return `options` with the plan's layers and widths, and the plan where it is a new one.

        Args:
            output: for progress.
            out: the file to write.
            options: as they were given.
            make: what plans.
        """
        plan, new = self.plan, None
        if plan is None:
            if self.max_bytes is None and self.max_drop is None:
                return options, None
            limits = Limits(self.max_bytes, self.max_drop)
            with scratch_folder(out), output.progress("Planning") as update:  # a missing folder is said now
                plan = new = make(limits, options, lambda what, place, number: update(place, number, what))
        return replace(options, layers=plan.layers, overrides=plan.overrides), new


def parse_size(text: str) -> int:
    """Read a number of bytes, such as 5000, 500kB, 1.2MB or 64KiB."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?) ?(|[kMG]|[KMG]i)B?", text.strip())
    if match is None:
        raise InputError(
            f"--max-bytes is {text!r}; expected a number of bytes, or one with kB, MB, GB, KiB, MiB or GiB"
        )
    return int(Decimal(match[1]) * UNITS[match[2]])


def keep_plan(output: Output, plan: Plan, out: Path, nbytes: int) -> dict[str, Any]:
    """Write the plan beside `out`, a file of `nbytes` bytes that follows it; print it, and return both as a
    document."""
    path = out.with_suffix(".plan.json")
    plan.save(path)
    title = "Plan; last and next: what the last bit took off the noise, and one more would, per kB"
    output.table(title, _HEADER, [_row(curve, plan) for curve in plan.curves])
    limit = "" if plan.max_bytes is None else f", of at most {plan.max_bytes:,}"
    output.say(f"Packed weights: {plan.nbytes:,} bytes{limit}; the rest of {out}: {nbytes - plan.nbytes:,}")
    if plan.drop is not None:
        output.say(f"Answers that change: {plan.drop.words}; at most {plan.max_drop:g} are allowed")
    output.say(f"Wrote {path}")
    return {"plan": plan.to_dict(), "plan_path": str(path)}


def _row(curve: WidthCurve, plan: Plan) -> tuple[object, ...]:
    bits = plan.bits[curve.name]
    point = curve.at(bits)
    return (
        curve.name,
        bits if curve.pinned is None else f"{bits} (asked for)",
        byte_size(point.nbytes),
        "-" if point.sqnr is None else f"{point.sqnr:.1f}",
        curve.measured_on,
        f"{point.noise / plan.noise if plan.noise else 0:.1%}",
        *("-" if fall is None else f"{1000 * fall:.1e}" for fall in (curve.fall(bits), curve.fall(bits + 1))),
    )
