"""The page: the table of all entries, and its plot."""

from collections.abc import Iterable
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from muquant.base.picture import BLACK, BLUE, GREY, ORANGE, VIOLET, write_picture
from muquant.base.text import byte_size, markdown_table
from muquant.robustness.rendering.words import ball
from robust.cost import cost
from robust.entry import Entry

COLOURS = {"float": BLACK, "rounded": GREY, "mapped": VIOLET, "calibrated": BLUE, "trained": ORANGE}
"""What was done to the weights -> the colour of its marks."""

NAMES = {"mnist": "MNIST", "folder:data/cifar10": "CIFAR-10 (JPEG)"}
"""What data sets are called."""

_HEAD = (
    *(
        "",
        "bits",
        "weights",
        "images",
        "clean",
        "of all images",
        "AA standard",
        "95 % interval",
        "as a file",
        "worst case",
        "certified",
    ),
    *("cost of bits", "file", "an image, PyTorch / file", "robustness"),
)


def summary(entries: Iterable[Entry]) -> dict[str, Any]:
    """Return the document of `results/leaderboard.json`: what bits cost, in place of the images."""
    lines = {entry.name: {**asdict(entry), "kept": entry.file.exists()} for entry in entries}
    for line in lines.values():
        control = lines.get(line["control"])
        line["cost"] = None if control is None else cost(line, control)
    for line in lines.values():
        del line["figures"]["images"]
        for found in line["figures"]["runtimes"].values():
            del found["fell"]
    return {"count": len(lines), "entries": list(lines.values())}


def boards(document: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    """Return the entries of `results/leaderboard.json` by data set and threat, the best first."""
    sorted_by: dict[str, list[dict[str, Any]]] = {}
    for entry in document["entries"]:
        title = f"{NAMES.get(entry['data'], entry['data'])}, {ball(entry['norm'], entry['epsilon'])}"
        sorted_by.setdefault(title, []).append(entry)
    for entries in sorted_by.values():
        entries.sort(key=lambda entry: -_torch(entry)["aa_standard"])
    return sorted_by


def table(document: dict[str, Any]) -> str:
    """Return one table for each data set and threat, and below it what each width costs."""
    parts = []
    for title, board in boards(document).items():
        rows = [_row(entry) for entry in board]
        parts.append(f"**{title}**\n\n" + markdown_table(_HEAD, "l" + "r" * (len(_HEAD) - 3) + "ll", rows))
        if ladders := _ladders(board):
            parts.append(f"**{title}, cost of bits in points**\n\n{ladders}")
    return "\n\n".join(parts)


def _families(board: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return what was made of one float network in one way, by (control, what was done to the weights)."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for entry in board:
        if entry["control"] is not None:
            found.setdefault((entry["control"], entry["weights"]), []).append(entry)
    return found


def _ladders(board: list[dict[str, Any]]) -> str:
    """Return the table of costs by width, of float networks of which there are several; "" without one."""
    ways = {
        family: {round(_torch(entry)["bits"], 2): points(entry["cost"]) for entry in made}
        for family, made in _families(board).items()
    }
    widths_of: dict[str, set[float]] = {}
    for (control, _), way in ways.items():
        widths_of.setdefault(control, set()).update(way)
    widths_of = {control: widths for control, widths in widths_of.items() if len(widths) > 1}
    columns = sorted({*chain(*widths_of.values())}, reverse=True)
    rows = [
        (control, weights, *(ways[control, weights].get(bits, "") for bits in columns))
        for control in widths_of
        for weights in COLOURS
        if (control, weights) in ways
    ]
    head = ("control", "weights", *(f"{bits:.3g} bits" for bits in columns))
    return markdown_table(head, "ll" + "r" * len(columns), rows) if rows else ""


def proven(document: dict[str, Any]) -> str:
    """Return the table of the entries that bounds prove something of, the best first."""
    head = ("", "weights", "images", "clean", "AA standard", "certified", "file")
    found = [(entry, _torch(entry)) for entry in document["entries"] if _torch(entry)["certified"]]
    found.sort(key=lambda pair: -pair[1]["certified"])
    rows = [
        (
            entry["name"],
            entry["weights"],
            f"{entry['figures']['count']:,}",
            f"{model['clean']:.1%}",
            f"{model['aa_standard']:.1%}",
            f"**{model['certified']:.1%}**",
            byte_size(model["nbytes"]),
        )
        for entry, model in found
    ]
    return markdown_table(head, "llrrrrr", rows)


def _row(entry: dict[str, Any]) -> tuple[str, ...]:
    found, deployed = _torch(entry), entry["figures"]["runtimes"]["onnx"]
    low, high = found["aa_standard_interval"]
    kept = f"[{entry['name']}](models/{entry['name']}.mq)" if entry["kept"] else entry["name"]
    certified = "" if found["certified"] is None else f"{found['certified']:.1%}"
    return (
        kept,
        f"{found['bits']:.3g}",
        entry["weights"],
        f"{entry['figures']['count']:,}",
        f"{found['clean']:.1%}",
        f"{entry['figures']['split']['clean']:.1%}",
        f"**{found['aa_standard']:.1%}**",
        f"{low:.1%} to {high:.1%}",
        f"{deployed['aa_standard']:.1%}",
        f"{min(found['worst_case'], deployed['worst_case']):.1%}",
        certified,
        "" if entry["control"] is None else points(entry["cost"]),
        byte_size(found["nbytes"]),
        f"{found['milliseconds']:.2f} / {deployed['milliseconds']:.2f} ms",
        found["verdict"],
    )


def points(lost: tuple[float, float, float] | None) -> str:
    """Return a cost of bits and its interval, shares, in percentage points: "1.6 (0.5 to 2.7)"."""
    if lost is None:
        return "not compared"
    mean, low, high = (100 * each for each in lost)
    return f"{mean:.1f} ({low:.1f} to {high:.1f})"


def plot(document: dict[str, Any], path: Path) -> None:
    """Draw AA standard against the bytes of the deployed file, a panel for each data set and threat.

    Lines join what was made of one float network in one way, at several bits.
    """
    found = boards(document)
    figure = Figure(figsize=(5.6 * len(found), 4.6), layout="constrained")
    for axes, (title, board) in zip(
        figure.subplots(1, len(found), squeeze=False)[0], found.items(), strict=True
    ):
        _panel(axes, title, board)
    handles = [
        axes.plot([], [], "o", color=colour, label=weights)[0]
        for weights, colour in COLOURS.items()
        for axes in figure.axes[:1]
    ]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(COLOURS), frameon=False)
    write_picture(figure, path)


def _panel(axes: Axes, title: str, board: list[dict[str, Any]]) -> None:
    for entry in board:
        model = _torch(entry)
        value, (low, high) = model["aa_standard"], model["aa_standard_interval"]
        axes.errorbar(
            model["nbytes"] / 1e6,
            100 * value,
            yerr=[[100 * max(0.0, value - low)], [100 * max(0.0, high - value)]],
            fmt="o",
            color=COLOURS[entry["weights"]],
            capsize=2,
        )
        if model["certified"]:
            axes.plot(
                model["nbytes"] / 1e6,
                100 * model["certified"],
                "_",
                color=COLOURS[entry["weights"]],
                markersize=14,
            )
        axes.annotate(f" {model['bits']:.3g}", (model["nbytes"] / 1e6, 100 * value), fontsize=8, va="bottom")
    for (_, weights), made in _families(board).items():
        marks = sorted((_torch(entry)["nbytes"] / 1e6, 100 * _torch(entry)["aa_standard"]) for entry in made)
        axes.plot(*zip(*marks, strict=True), color=COLOURS[weights], linewidth=0.8, alpha=0.6)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_title(title, fontsize=11)
    axes.set_xlabel("MB of the deployed file; numbers are bits")
    axes.set_ylabel("AA standard, %; dashes are certified")
    axes.set_ylim(-3, 103)
    axes.grid(alpha=0.25)


def _torch(entry: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = entry["figures"]["runtimes"]["torch"]
    return found
