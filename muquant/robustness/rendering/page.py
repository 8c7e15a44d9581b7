"""The report as one HTML page: no scripts, nothing loaded from anywhere.

Charts are SVG that the templates write themselves: it takes its colours from the page's style sheet, so that
it follows the reader's light or dark theme and prints well, which a figure of matplotlib's does not.
"""

import json
from collections.abc import Sequence
from functools import cache
from itertools import groupby
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from muquant.robustness.rendering import charts, words
from muquant.robustness.rendering.pictures import exhibits, shrinkage
from muquant.robustness.rendering.rows import corruption_rows, rows, standings
from muquant.robustness.report import SCHEMA, Picture, Report


def to_html(report: Report, pictures: Sequence[Picture] = ()) -> str:
    """The report as a page that needs no other file; the same report gives the same bytes.

    Args:
        report: what is shown.
        pictures: images under attack; few enough to be looked at.
    """
    columns = list(zip(report.models, charts.styles(report), strict=True))
    searches, noises = rows(report, corruption=False), rows(report, corruption=True)
    flagged = [(model, style) for model, style in columns if model.flags]
    return (
        _environment()
        .get_template("page.html")
        .render(
            report=report,
            schema=SCHEMA,
            count=report.data["count"],
            columns=columns,
            heads=[(name, len(list(run))) for name, run in groupby(model.name for model in report.models)],
            searches=searches,
            noises=noises,
            everything=searches + noises,
            most={name: _most(report, name) for name in ("queries", "seconds")},
            corruptions=corruption_rows(report),
            panels=charts.panels(report),
            exhibits=exhibits(pictures),
            shrink=shrinkage(pictures),
            flagged=sorted(flagged, key=lambda column: not words.disqualified(column[0])),
        )
    )


def _most(report: Report, field: str) -> float:
    return max(
        (getattr(attack, field) for model in report.models for attack in model.attacks.values()), default=0
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("muquant.robustness.rendering"),
        autoescape=True,  # names of models, classes and files come from strangers
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals.update(charts=charts, words=words, standings=standings, zip=_zip)
    environment.filters["shown"] = _shown
    return environment


def _zip(*lists: Sequence[Any]) -> list[tuple[Any, ...]]:
    return list(zip(*lists, strict=True))


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
