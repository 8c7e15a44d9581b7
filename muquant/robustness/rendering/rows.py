"""The table of attacks, as the page and the Markdown both lay it out: one row an attack, one cell a model."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from muquant.robustness.rendering import words
from muquant.robustness.report import AttackReport, Report

Standing = Literal["best", "worst", ""]


@dataclass(frozen=True)
class Row:
    """One attack on all models.

    Attributes:
        name: of the attack.
        cells: one for each model of the report, in its order; None where the attack was not part of it.
    """

    name: str
    cells: tuple[AttackReport | None, ...]

    @property
    def known(self) -> AttackReport:
        """A cell for what all agree on: norm, epsilon, parameters, whether it is a corruption."""
        return next(cell for cell in self.cells if cell is not None)

    @property
    def within(self) -> str:
        """The ball it searches, and what went before it; for a corruption, its parameters."""
        if self.known.corruption:
            return words.parameters(self.known.parameters)
        ball = words.ball(self.known.norm, self.known.epsilon)
        return f"{ball}, what {self.known.after[-1]} left" if self.known.after else ball

    @property
    def accuracies(self) -> list[float | None]:
        """0..1, None where there is none."""
        return [None if cell is None else cell.accuracy for cell in self.cells]


@dataclass(frozen=True)
class CorruptionRow:
    """One kind of corruption on all models, or the mean of all kinds.

    Attributes:
        name: of the kind, in words.
        cells: accuracy at each severity, for each model of the report; None where it was not tried.
    """

    name: str
    cells: tuple[tuple[float, ...] | None, ...]

    @property
    def means(self) -> list[float | None]:
        """Over severities, 0..1."""
        return [None if cell is None else sum(cell) / len(cell) for cell in self.cells]


def corruption_rows(report: Report) -> list[CorruptionRow]:
    """A row for each kind, and last that of their mean at each severity; none where none was asked for."""
    found = [model.corruptions for model in report.models]
    kinds = dict.fromkeys(kind for each in found if each is not None for kind in each.accuracy)
    table = [
        CorruptionRow(
            kind.replace("_", " "), tuple(None if each is None else each.accuracy[kind] for each in found)
        )
        for kind in kinds
    ]
    if not table:
        return []
    means = (
        None
        if each is None
        else tuple(sum(column) / len(column) for column in zip(*each.accuracy.values(), strict=True))
        for each in found
    )
    return [*table, CorruptionRow("mean", tuple(means))]


def rows(report: Report, *, corruption: bool) -> list[Row]:
    """The rows of searches for a worst case, or those of corruptions, in the order in which they ran."""
    names = dict.fromkeys(name for model in report.models for name in model.attacks)
    found = [Row(name, tuple(model.attacks.get(name) for model in report.models)) for name in names]
    return [row for row in found if row.known.corruption == corruption]


def standings(values: Sequence[float | None]) -> list[Standing]:
    """Which values are highest and lowest; none where all are equal."""
    known = [value for value in values if value is not None]
    if not known or min(known) == max(known):
        return [""] * len(values)
    names: dict[float | None, Standing] = {max(known): "best", min(known): "worst"}
    return [names.get(value, "") for value in values]
