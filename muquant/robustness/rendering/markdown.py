"""The report as Markdown, to be pasted into a pull request."""

import json
from collections.abc import Iterator, Sequence
from itertools import chain

from muquant.base.text import code, escape, markdown_table
from muquant.robustness.rendering import words
from muquant.robustness.rendering.charts import curve_groups
from muquant.robustness.rendering.rows import Row, corruption_rows, rows
from muquant.robustness.report import AttackReport, ModelReport, Report

_REPLAY, _NOT_AVAILABLE = "↻", "not available"


def to_markdown(report: Report) -> str:
    """The report in GitHub's Markdown, the worst case first."""
    sections = (_worst_case, _attacks, _noises, _corruptions, _curves, _flags, _costs, _provenance)
    return "\n".join(chain.from_iterable(section(report) for section in sections))


def _worst_case(report: Report) -> Iterator[str]:
    count, standard, proven = report.data["count"], words.has_standard(report), words.has_certified(report)
    aim = f", aimed at {words.aim(report)}" if words.aim(report) else ""
    yield (
        f"## Worst case within {words.ball(report.norm, report.epsilon)}{aim}, "
        f"{words.plural(count, 'image')} of {code(report.data['name'])}, split {code(report.data['split'])}"
    )
    yield ""
    yield markdown_table(
        [
            *("model", "runtime", "weights, file", "clean"),
            *["certified"] * proven,
            *["AA standard"] * standard,
            *("worst case", "95% interval", "verdict"),
        ],
        "lllr" + "r" * (proven + standard) + "rll",
        [
            [
                code(model.name),
                words.RUNTIMES[model.runtime],
                words.make(model) or "-",
                words.percent(model.clean, count),
                *[words.percent(model.certified, count)] * proven,
                *[words.percent(model.aa_standard, count)] * standard,
                f"**{words.percent(model.worst_case, count)}**",
                words.interval(model.worst_case_interval, count),
                f"{words.SYMBOLS[model.verdict]} **{model.verdict}** ({escape(words.reason(model, report))})",
            ]
            for model in report.models
        ],
    )
    yield ""
    yield (
        "The worst case is the share of images that the model sees correctly and that no attack of the suite "
        f"{code(report.suite)}, nor any of the checks, fooled within "
        f"{words.ball(report.norm, report.epsilon)}: a bound from above. The verdict says whether it can be "
        "believed, not whether it is high."
    )
    yield ""
    if words.aim(report):
        yield words.aimed(report)
        yield ""
    if words.abstained(report):
        yield words.ABSTAINS
        yield ""
        yield from (f"- {escape(line)}" for line in words.abstained(report))
        yield ""
    if proven:
        yield words.CERTIFIED
        yield ""
    if standard:
        yield words.STANDARD
        yield ""
        yield from (f"- {escape(line)}" for line in words.efforts(report))
        yield ""


def _attacks(report: Report) -> Iterator[str]:
    found = rows(report, corruption=False)
    if not found:
        return
    yield "### Accuracy under each attack"
    yield ""
    yield from _accuracies(report, "within", found)
    yield from _replays(report)


def _replays(report: Report) -> Iterator[str]:
    if any(attack.source == "replay" for model in report.models for attack in model.attacks.values()):
        yield (
            f"{_REPLAY} replayed: the examples were made on the PyTorch model. In brackets, the share of "
            "them that both runtimes give the same class."
        )
        yield ""
    agreements = [
        f"{words.percent(model.agreement, report.data['count'])} for {code(model.name)}"
        for model in report.models
        if model.agreement is not None
    ]
    if agreements:
        yield f"Clean images that both runtimes give the same class: {', '.join(agreements)}."
        yield ""


def _noises(report: Report) -> Iterator[str]:
    found = rows(report, corruption=True)
    if found:
        yield "### Accuracy under noise, which is no part of the worst case"
        yield ""
        yield from _accuracies(report, "with", found)


def _corruptions(report: Report) -> Iterator[str]:
    found = corruption_rows(report)
    if not found:
        return
    yield "### Accuracy under corruptions, which are no attacks"
    yield ""
    yield markdown_table(
        ["corruption", *map(_heading, report.models)],
        "l" + "r" * len(report.models),
        [[row.name, *map(_severities, row.cells)] for row in found],
    )
    yield ""
    yield words.CORRUPTIONS
    yield ""
    yield from (f"- {escape(line)}" for line in words.corrupted(report))
    yield ""


def _severities(cell: tuple[float, ...] | None) -> str:
    if cell is None:
        return "-"
    return f"{sum(cell) / len(cell):.1%} ({' '.join(f'{100 * value:.0f}' for value in cell)})"


def _accuracies(report: Report, qualifier: str, found: Sequence[Row]) -> Iterator[str]:
    count = report.data["count"]
    yield markdown_table(
        ["attack", qualifier, *map(_heading, report.models)],
        "ll" + "r" * len(report.models),
        [[code(row.name), row.within, *(_accuracy(cell, count) for cell in row.cells)] for row in found],
    )
    yield ""


def _accuracy(cell: AttackReport | None, whole: int) -> str:
    if cell is None:
        return "-"
    if cell.source == "not available" or cell.accuracy is None:
        return _NOT_AVAILABLE
    of = "" if cell.count == whole else f" of {cell.count:,}"
    agreement = "" if cell.agreement is None else f" ({words.percent(cell.agreement, cell.count)})"
    mark = f" {_REPLAY}" if cell.source == "replay" else ""
    return f"{words.percent(cell.accuracy, cell.count)}{of}{mark}{agreement}"


def _curves(report: Report) -> Iterator[str]:
    for group in curve_groups(report):
        yield (
            f"### Accuracy against {words.NORMS.get(group.norm, group.norm)} epsilon, "
            f"{escape(group.attack)}, {words.plural(group.count, 'image')}"
        )
        yield ""
        radii = sorted({epsilon for _, curve in group.members for epsilon in curve.epsilon})
        tracks = [dict(zip(curve.epsilon, curve.accuracy, strict=True)) for _, curve in group.members]
        yield markdown_table(
            ["epsilon", *(_heading(model) for model, _ in group.members)],
            "r" * (1 + len(tracks)),
            [
                [words.radius(epsilon), *(words.percent(track.get(epsilon), group.count) for track in tracks)]
                for epsilon in radii
            ],
        )
        yield ""


def _flags(report: Report) -> Iterator[str]:
    yield "### Masking checks"
    yield ""
    for model in report.models:
        if not model.checks:
            yield f"- {code(model.name)}, {words.RUNTIMES[model.runtime]}: {words.unchecked(model)}"
            continue
        quiet = [check for check in model.checks if not check.fired]
        yield (
            f"- {code(model.name)}, {words.RUNTIMES[model.runtime]}: {len(model.flags)} of "
            f"{words.plural(len(model.checks), 'check')} fired"
        )
        for flag in words.by_weight(model.flags):
            yield (
                f"  - **{escape(flag.check)}** ({flag.kind}): {words.number(flag.value)} where at most "
                f"{words.number(flag.threshold)} is expected: {escape(flag.explanation)}"
            )
        if quiet:
            yield f"  - quiet: {escape(', '.join(check.check for check in quiet))}"
    yield ""


def _costs(report: Report) -> Iterator[str]:
    yield "<details><summary>Costs: queries and wall time</summary>"
    yield ""
    found = rows(report, corruption=False) + rows(report, corruption=True)
    yield markdown_table(
        ["queries, time", *map(_heading, report.models)],
        "l" + "r" * len(report.models),
        [[code(row.name), *map(_cost, row.cells)] for row in found]
        + [["all attacks and checks", *(words.duration(model.seconds) for model in report.models)]],
    )
    yield ""
    yield "</details>"
    yield ""


def _cost(cell: AttackReport | None) -> str:
    if cell is None or cell.source == "not available":
        return "-"
    return f"{cell.queries:,} in {words.duration(cell.seconds)}"


def _provenance(report: Report) -> Iterator[str]:
    yield "<details><summary>Provenance</summary>"
    yield ""
    facts = {
        **report.provenance,
        "suite": report.suite,
        "seed": report.seed,
        "processes": report.processes,
        **({"passes averaged": report.eot} if report.eot > 1 else {}),
        "data": {name: value for name, value in report.data.items() if name != "indices"},
    }
    for name, value in facts.items():
        shown = value if isinstance(value, str) else json.dumps(value)
        yield f"- {escape(name)}: {code(shown)}"
    yield ""
    yield "</details>"
    yield ""


def _heading(model: ModelReport) -> str:
    return f"{code(model.name)}<br>{words.RUNTIMES[model.runtime]}"
