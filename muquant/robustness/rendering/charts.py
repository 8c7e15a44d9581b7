"""Accuracy against epsilon: which curves share a panel, and where its lines run."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from matplotlib.ticker import MaxNLocator

from muquant.robustness.rendering import words
from muquant.robustness.report import AccuracyCurve, ModelReport, Report
from muquant.robustness.statistics import wilson

COLOURS, SHAPES = 7, ("circle", "square", "triangle", "diamond", "cross")


@dataclass(frozen=True)
class Style:
    """How a model is drawn: one colour and shape for a name, hollow and dashed under onnxruntime.

    Attributes:
        colour: 0..COLOURS - 1.
        shape: one of `SHAPES`.
        hollow: it is not filled.
    """

    colour: int
    shape: str
    hollow: bool


def styles(report: Report) -> list[Style]:
    """One style for each model of the report."""
    names = list(dict.fromkeys(model.name for model in report.models))
    places = [names.index(model.name) for model in report.models]
    return [
        Style(place % COLOURS, SHAPES[place % len(SHAPES)], model.runtime == "onnx")
        for place, model in zip(places, report.models, strict=True)
    ]


@dataclass(frozen=True)
class CurveGroup:
    """Curves that can be compared: of one attack, in one norm, on as many images.

    Attributes:
        norm: of epsilon.
        attack: in words.
        count: images.
        members: each model with its curve.
    """

    norm: str
    attack: str
    count: int
    members: tuple[tuple[ModelReport, AccuracyCurve], ...]


def curve_groups(report: Report) -> list[CurveGroup]:
    """All curves of the report, grouped; those in the norm of the headline first."""
    groups: dict[tuple[str, str, int], list[tuple[ModelReport, AccuracyCurve]]] = {}
    for model in report.models:
        for curve in model.curves:
            groups.setdefault((curve.norm, curve.attack, curve.count), []).append((model, curve))
    found = [CurveGroup(*key, tuple(members)) for key, members in groups.items()]
    return sorted(found, key=lambda group: group.norm != report.norm)


@dataclass(frozen=True)
class ChartPoint:
    """A point of a curve: its place, and what it says when pointed at."""

    x: float
    y: float
    label: str


@dataclass(frozen=True)
class Line:
    """One curve.

    Attributes:
        style: of its model.
        points: of the curve.
        band: corners of the 95 % interval around it, as an SVG polygon takes them.
    """

    style: Style
    points: tuple[ChartPoint, ...]
    band: str

    @property
    def corners(self) -> str:
        """The points as an SVG polyline takes them."""
        return _corners([(point.x, point.y) for point in self.points])


@dataclass(frozen=True)
class Panel:
    """One chart, in units of its plotting area: x and y run from 0 to `WIDTH` and `HEIGHT`, y downwards.

    Attributes:
        group: the curves in it.
        beyond: radii that are not drawn, in words.
        lines: one for each curve.
        ticks: of the x axis.
        headline: where the headline threat lies; None where its norm is another, or it is outside.
    """

    group: CurveGroup
    beyond: tuple[str, ...]
    lines: tuple[Line, ...]
    ticks: tuple[ChartPoint, ...]
    headline: ChartPoint | None


WIDTH, HEIGHT = 440, 260

DRAWN = 4
"""Times the headline epsilon, in its norm: larger radii, where nothing stands, would squeeze the rest."""


def panels(report: Report) -> list[Panel]:
    """A panel for each group of curves."""
    return [_panel(report, group) for group in curve_groups(report)]


def _panel(report: Report, group: CurveGroup) -> Panel:
    radii = sorted({epsilon for _, curve in group.members for epsilon in curve.epsilon})
    limit = DRAWN * report.epsilon if group.norm == report.norm and report.epsilon else math.inf
    end = max(epsilon for epsilon in radii if epsilon <= limit) or 1.0
    looks = dict(zip([id(model) for model in report.models], styles(report), strict=True))
    ticks = [
        tick
        for tick in MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]).tick_values(0, end)
        if tick <= end * (1 + 1e-9)
    ]
    shown = group.norm == report.norm and report.epsilon <= end
    return Panel(
        group,
        tuple(words.radius(epsilon) for epsilon in radii if epsilon > limit),
        tuple(_line(looks[id(model)], model, curve, end) for model, curve in group.members),
        tuple(ChartPoint(_x(tick, end), HEIGHT, f"{tick:.4g}") for tick in ticks),
        ChartPoint(_x(report.epsilon, end), 0, words.radius(report.epsilon)) if shown else None,
    )


def _line(style: Style, model: ModelReport, curve: AccuracyCurve, end: float) -> Line:
    points, low, high = [], [], []
    for epsilon, accuracy in zip(curve.epsilon, curve.accuracy, strict=True):
        if epsilon > end:
            break
        x, bounds = _x(epsilon, end), wilson(round(accuracy * curve.count), curve.count)
        label = f"{words.title(model)}: {words.percent(accuracy, curve.count)} at {words.radius(epsilon)}"
        points.append(ChartPoint(x, _y(accuracy), label))
        low.append((x, _y(bounds[0])))
        high.append((x, _y(bounds[1])))
    return Line(style, tuple(points), _corners([*low, *reversed(high)]))


def _x(epsilon: float, end: float) -> float:
    return round(WIDTH * epsilon / end, 1)


def _y(accuracy: float) -> float:
    return round(HEIGHT * (1 - accuracy), 1)


def _corners(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)
