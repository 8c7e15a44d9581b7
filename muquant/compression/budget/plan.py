"""The plan: which width each weight gets, and why; in memory and as a JSON file that people may edit."""

import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Self

from muquant.base.errors import InputError, naming
from muquant.base.files import write_json
from muquant.base.reading import read_json
from muquant.base.values import field_values
from muquant.compression.budget.curve import WIDTHS, WidthCurve
from muquant.compression.budget.limits import Limits
from muquant.compression.selection import Layers

SCHEMA = "muquant.plan/1"
_NO_EXPRESSION = re.compile(r"all|last:\d{1,9}")


@dataclass(frozen=True)
class Drop:
    """What compression did to a model's answers on held-out samples.

    Attributes:
        changed: answers that differ from the float model's.
        answers: all of them.
        expected: the share that is to be expected to change, by how sure the float model is of each; None
            where that is not known, as for labels.
        deviation: standard error of `expected`, over the choice of samples.

    Raises:
        InputError: a field is outside its range.
    """

    changed: int
    answers: int
    expected: float | None = None
    deviation: float = 0.0

    def __post_init__(self) -> None:
        if any(type(each) is not int for each in (self.changed, self.answers)) or not (
            0 <= self.changed <= self.answers > 0
        ):
            raise InputError(f"drop: {self.changed!r:.30} of {self.answers!r:.30} answers; expected counts")
        shares = (self.deviation, *(() if self.expected is None else (self.expected,)))
        if any(type(each) not in (int, float) or not 0 <= each <= 1 for each in shares):
            raise InputError(f"drop: {self.expected!r:.30}, {self.deviation!r:.30}; expected shares, 0 to 1")

    @property
    def points(self) -> float:
        """The share that changes in percentage points; the accuracy falls by no more. What is expected, or
        where that is not known what was counted: a multiple of one over their number."""
        return 100 * (self.changed / self.answers if self.expected is None else self.expected)

    @property
    def words(self) -> str:
        """The same for people."""
        counted = f"{self.changed:,} of {self.answers:,} held-out ones"
        if self.expected is None:
            return f"{counted}, {self.points:.3g} points; one answer is {100 / self.answers:.3g}"
        low, high = (max(0.0, self.points + sign * 196 * self.deviation) for sign in (-1, 1))
        return f"{counted}; by all margins {self.points:.3g} points are expected, {low:.3g} to {high:.3g}"


@dataclass(frozen=True)
class Plan:
    """A width for each weight.

    As a file it is this object as JSON, with "schema": "muquant.plan/1" first. What `bits` says is done;
    the rest tells how it came about.

    Attributes:
        bits: name of a weight -> its width. This is what to edit.
        layers: which were to be compressed, in the forms of `compress`; the others stay float. In a plan that
            was read no regular expression is left, since whoever wrote it could make one that takes years to
            search: it names the weights.
        max_bytes: the limit on the bytes of packed codes and steps, or None.
        max_drop: the limit on changed answers in percentage points, or None.
        drop: what was measured with these widths; None without `max_drop`.
        curves: bytes and noise of each weight at each width.

    Raises:
        InputError: a width is outside 2 to 8, or not that of a weight with a curve; a limit is out of range.
    """

    bits: Mapping[str, int]
    layers: Layers
    max_bytes: int | None
    max_drop: float | None
    drop: Drop | None
    curves: tuple[WidthCurve, ...]

    def __post_init__(self) -> None:
        Limits(self.max_bytes, self.max_drop)
        names = {curve.name for curve in self.curves}
        if not isinstance(self.bits, Mapping) or set(self.bits) != names or len(names) != len(self.curves):
            raise InputError(f"bits: expected the widths of {', '.join(sorted(names))}, found others")
        measured = {curve.name: [point.bits for point in curve.points] for curve in self.curves}
        for name, width in self.bits.items():
            if type(width) is not int or width not in WIDTHS:
                raise InputError(
                    f"bits of {name}: {width!r:.60}; expected a whole number from 2 to {WIDTHS[-1]}"
                )
            if width not in measured[name]:
                raise InputError(
                    f"bits of {name}: {width}; expected a width that its curve has a point of, "
                    f"{', '.join(map(str, measured[name]))}"
                )
        listed = self.layers if isinstance(self.layers, list | tuple) else (None,)
        if not isinstance(self.layers, str) and any(
            not isinstance(name, str) or name not in names for name in listed
        ):
            raise InputError(f"layers is {self.layers!r:.60}; expected a text, or names of weights")

    @property
    def overrides(self) -> dict[str, int]:
        """The widths as `compress` and `compress_onnx` take them, along with `layers`."""
        return {f"={name}": width for name, width in self.bits.items()}

    @property
    def nbytes(self) -> int:
        """Bytes of packed codes and steps."""
        return sum(curve.at(self.bits[curve.name]).nbytes for curve in self.curves)

    @property
    def noise(self) -> float:
        """The sum of the weights' noise, which the plan made small."""
        return sum(curve.at(self.bits[curve.name]).noise for curve in self.curves)

    def to_dict(self) -> dict[str, Any]:
        """Return the document that a file holds, as plain JSON values."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_dict(cls, document: object) -> Self:
        """Build from `to_dict`'s output; what does not fit is an `InputError`."""
        found = document.get("schema") if isinstance(document, Mapping) else None
        if not isinstance(document, Mapping) or found != SCHEMA:
            raise InputError(f"schema is {found!r:.60}; expected {SCHEMA!r}; name a plan that muquant wrote")
        fields = {key: value for key, value in document.items() if key != "schema"}
        values = field_values(cls, fields, "plan")
        if not isinstance(values["curves"], tuple):
            raise InputError(f"curves is {values['curves']!r:.60}; expected a list")
        values["curves"] = tuple(map(WidthCurve.from_dict, values["curves"]))
        if values["drop"] is not None:
            values["drop"] = Drop(**field_values(Drop, values["drop"], "drop"))
        plan = cls(**values)
        literal = not isinstance(plan.layers, str) or _NO_EXPRESSION.fullmatch(plan.layers)
        return plan if literal else replace(plan, layers=tuple(plan.bits))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a JSON file, whole or not at all; `read_plan` reads it."""
        write_json(path, self.to_dict())


def read_plan(path: str | os.PathLike[str]) -> Plan:
    """Read a plan, written by `Plan.save` and perhaps edited.

    Raises:
        InputError: the file is missing, or is no plan.
    """
    document = read_json(path)
    with naming(str(path)):
        return Plan.from_dict(document)
