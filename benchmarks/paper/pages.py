"""The results as tables and a picture for people: Markdown, HTML, PNG."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import ChoiceLoader, Environment, FileSystemLoader, PackageLoader, StrictUndefined
from matplotlib.figure import Figure

from muquant.base.files import write_bytes
from muquant.base.picture import BLACK, BLUE, GREY, ORANGE, write_picture
from muquant.base.reading import read_json
from muquant.base.text import markdown_table
from muquant.robustness.rendering.words import radius
from paper.attacks import BEYOND, BLACK_BOX, CLEAN, WHITE_BOX
from paper.networks import OUR_ROWS, PUBLISHED_ROWS
from paper.published import published
from paper.targets import accuracy

DISQUALIFYING, ADVISORY = "‡", "†"
"""Behind the figures of a row in which a masking check of that kind fired."""

NOT_RUN = "-"

MARKS = {
    DISQUALIFYING: "a check fired that disqualifies the row: its attacks did not find what is there",
    ADVISORY: "a check fired that advises stronger attacks: what it found is in the worst case",
}


@dataclass(frozen=True)
class Cell:
    """One figure.

    Attributes:
        text: ours, with its mark.
        source: the source's; "" where it has none.
    """

    text: str
    source: str = ""

    def __str__(self) -> str:
        return f"{self.text} ({self.source})" if self.source else self.text


@dataclass(frozen=True)
class Panel:
    """One table.

    Attributes:
        title: above it.
        columns: (name, below it in small: epsilon and count).
        rows: (name, whether it is ours, its cells).
    """

    title: str
    columns: list[tuple[str, str]]
    rows: list[tuple[str, bool, list[Cell]]]


def write_pages(results: Path, folder: Path) -> None:
    """Write NAME.md, NAME.html and NAME.png beside NAME.json."""
    document = read_json(results)
    write_bytes(folder / f"{results.stem}.md", to_markdown(document).encode())
    write_bytes(folder / f"{results.stem}.html", to_html(document).encode())
    draw(document, folder / f"{results.stem}.png")


def to_markdown(document: dict[str, Any]) -> str:
    """All tables in GitHub's Markdown."""
    lines = [f"# {title(document)}", "", *(f"{text}\n" for text in notes(document))]
    for panel in panels(document):
        lines += [f"## {panel.title}", ""]
        heads = ["", *(f"{name}<br>{small}" if small else name for name, small in panel.columns)]
        body = [[f"**{name}**" if ours else name, *map(str, cells)] for name, ours, cells in panel.rows]
        lines += [markdown_table(heads, "l" + "r" * len(panel.columns), body), ""]
    lines += ["## What was asked", ""]
    asked = [
        ["met" if each["met"] else "**missed**", each["target"], each["found"]]
        for each in document["targets"]
    ]
    lines += [markdown_table(["", "target", "found"], "lll", asked), ""]
    lines += ["## Checks that fired", "", *(f"- {text}" for text in fired(document) or ["None."]), ""]
    return "\n".join(lines)


def to_html(document: dict[str, Any]) -> str:
    """All tables and the picture on one page, which needs no file but the picture."""
    environment = Environment(
        loader=ChoiceLoader(
            [FileSystemLoader(Path(__file__).parent), PackageLoader("muquant.robustness.rendering")]
        ),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html").render(
        document=document,
        title=title(document),
        notes=notes(document),
        panels=panels(document),
        fired=fired(document),
        picture=f"paper_{document['model']}.png",
    )


def title(document: dict[str, Any]) -> str:
    """What the tables are of."""
    name = {"mnist": "MNIST", "cifar10": "CIFAR-10"}[document["data"]]
    return f"The source's tables on {name}, {document['model']}: ours (source)"


def notes(document: dict[str, Any]) -> list[str]:
    """What a reader has to know before the figures."""
    counts, rows = document["counts"], document["rows"]
    missing = len(PUBLISHED_ROWS) + len(OUR_ROWS) - len(rows)
    cw = max(row["attacks"].get("cw", {"count": 0})["count"] for row in rows.values())
    commits = dict.fromkeys(row["commit"][:12] for row in rows.values())
    found = [
        "Accuracy in percent under each attack; in brackets what Song, Fallon and Li state. Clean on "
        f"all test images, FGSM and noise on {counts['whole']:,} of them, iterative attacks on "
        f"{counts['iterative']:,} drawn with seed {document['seed']}"
        + (f", CW on the first {cw:,} of these. " if cw else "; CW was not run. ")
        + f"Commit{'s' * (len(commits) > 1)} {', '.join(commits)}.",
        document["said"],
        "Black-box examples are made on the surrogate: Orig. trained with another seed.",
        "The worst case is over all attacks but CW and all checks inside the strong epsilon, APGD-CE, APGD-T "
        "and Square with 5,000 queries among them. "
        + " ".join(f"{mark} {text}." for mark, text in MARKS.items()),
    ]
    if document["images"] != document["data"]:
        found.insert(
            1,
            "The images are JPEG versions of CIFAR-10's, which could not be had: no figure here is "
            "one of CIFAR-10 itself.",
        )
    if missing:
        found.insert(0, f"{missing} rows are not measured yet.")
    return found


def panels(document: dict[str, Any]) -> list[Panel]:
    """White-box, black-box, and what the source does not have."""
    data = document["data"]
    return [
        _panel(document, "White-box", WHITE_BOX, "white_box", data),
        _panel(document, "Black-box and noise", BLACK_BOX, "black_box", data),
        _beyond(document),
    ]


def _panel(document: dict[str, Any], heading: str, columns: dict[str, str], box: str, data: str) -> Panel:
    rows = []
    for name, row in document["rows"].items():
        cells = []
        for column, attack in columns.items():
            stated = published(data, box, name, column)
            cells.append(Cell(_ours(row, attack), "" if stated is None else percent(stated)))
        rows.append((name, name in OUR_ROWS, cells))
    return Panel(heading, [(column, _small(document, attack)) for column, attack in columns.items()], rows)


def _ours(row: dict[str, Any], attack: str) -> str:
    """A figure with the mark of its row, if it is one of robustness."""
    if attack not in row["attacks"]:
        return NOT_RUN
    marked = attack != CLEAN and not row["attacks"][attack]["corruption"]
    return percent(accuracy(row, attack)) + (mark_of(row) if marked else "")


def _beyond(document: dict[str, Any]) -> Panel:
    columns = [(column, _small(document, attack)) for column, attack in BEYOND.items()]
    rows = []
    for name, row in document["rows"].items():
        mark = mark_of(row)
        low, high = row["worst_case_interval"]
        cells = [Cell(_ours(row, attack)) for attack in BEYOND.values()]
        distance = row["attacks"]["ddn"]["median_l2"]
        cells += [
            Cell(NOT_RUN if distance is None else f"{distance:.2f}"),
            Cell(percent(row["worst_case"]) + mark),
            Cell(f"{percent(low)} to {percent(high)}"),
            Cell(row["verdict"]),
        ]
        rows.append((name, name in OUR_ROWS, cells))
    more = [("DDN", "median L2"), ("Worst case", _ball(document)), ("95 % interval", ""), ("Robustness", "")]
    return Panel("Beyond the source: the worst case", [*columns, *more], rows)


def _small(document: dict[str, Any], name: str) -> str:
    found = [row["attacks"][name] for row in document["rows"].values() if name in row["attacks"]]
    if not found:
        return "not run"
    attack = found[0]
    if name == CLEAN or attack["corruption"] or attack["epsilon"] is None:
        return f"{attack['count']:,} images"
    norm = {"linf": "Linf", "l2": "L2"}[attack["norm"]]
    return f"{norm} {radius(attack['epsilon'])}, {attack['count']:,} images"


def _ball(document: dict[str, Any]) -> str:
    return f"Linf {radius(document['settings']['epsilon'])}, {document['counts']['iterative']:,} images"


def percent(share: float) -> str:
    """Without the sign."""
    return f"{100 * share:.2f}".rstrip("0").rstrip(".")


def mark_of(row: dict[str, Any]) -> str:
    """The mark of a row."""
    kinds = {check["kind"] for check in row["checks"] if check["fired"]}
    return DISQUALIFYING if "disqualifying" in kinds else ADVISORY if kinds else ""


def fired(document: dict[str, Any]) -> list[str]:
    """A sentence for each check that fired."""
    return [
        f"{name}: {check['check']} ({check['kind']}): {check['explanation']}"
        for name, row in document["rows"].items()
        for check in row["checks"]
        if check["fired"]
    ]


SHOWN = {
    "published": ("PGD, as the source states it", BLACK, "o", "none"),
    "pgd": ("PGD on the cross-entropy, ours", ORANGE, "o", ORANGE),
    "pgd-margin": ("PGD on the margin", GREY, "D", GREY),
    "worst": ("worst case", BLUE, "s", BLUE),
}
"""Figure -> its words, colour, marker and filling in the picture."""


def draw(document: dict[str, Any], path: Path) -> None:
    """For each row the claim, the same attack here, and what really is left."""
    names = list(document["rows"])
    figure = Figure(figsize=(9, 0.36 * len(names) + 1.6), layout="constrained")
    axes = figure.subplots()
    for place, name in enumerate(names):
        row = document["rows"][name]
        values = {
            "published": published(document["data"], "white_box", name, "PGD"),
            "pgd": accuracy(row, "pgd"),
            "pgd-margin": accuracy(row, "pgd-margin"),
            "worst": row["worst_case"],
        }
        axes.plot(
            [100 * values["worst"], 100 * values["pgd"]], [place, place], color=GREY, linewidth=1, zorder=1
        )
        for key, value in values.items():
            if value is not None:
                words, colour, marker, filling = SHOWN[key]
                axes.plot(
                    100 * value,
                    place,
                    marker,
                    color=colour,
                    markerfacecolor=filling,
                    markersize=7,
                    label=words if place == 0 else None,
                )
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlim(-2, 102)
    axes.set_xlabel(f"accuracy in %, Linf {radius(document['settings']['epsilon'])}")
    axes.grid(axis="x", color="#e5e7eb")
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    for label, name in zip(axes.get_yticklabels(), names, strict=True):
        label.set_fontweight("bold" if name in OUR_ROWS else "normal")
    figure.legend(loc="outside upper center", ncols=len(SHOWN), frameon=False, fontsize=9)
    write_picture(figure, path)
