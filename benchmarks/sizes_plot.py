"""The picture of `zoo_sizes.py`: for each network the size of its files against how alike they answer."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from muquant.base.picture import BLUE, GREY, ORANGE, write_picture
from muquant.base.text import byte_size

SERIES: dict[str, dict[str, Any]] = {
    "muquant": {"color": BLUE, "marker": "o", "linewidth": 2.2, "zorder": 3},
    "plain rounding": {"color": GREY, "marker": "s", "linewidth": 1.2, "linestyle": "--"},
    "onnxruntime": {"color": ORANGE, "marker": "D", "linestyle": "", "markersize": 8},
}
"""The first word or two of a way -> how it is drawn."""
LABELS = {
    "muquant": "muquant, 64 samples, at the bits stated",
    "plain rounding": "uniform levels, nearest",
    "onnxruntime": "onnxruntime, static int8",
}


def plot_sizes(networks: dict[str, Any], path: Path) -> None:
    """Draw a panel for each network: a line for what is made at several widths, a mark for int8."""
    rows = -(-len(networks) // 2)
    figure = Figure(figsize=(7.5, 1 + 2.5 * rows), layout="constrained")
    panels = figure.subplots(rows, 2, sharex=True, sharey=True, squeeze=False).ravel()
    for axes, (name, row) in zip(panels, networks.items(), strict=False):
        draw(axes, row)
        axes.set_title(f"{name}, {byte_size(row['float_nbytes'])}", fontsize=11, loc="left")
    for axes in panels[len(networks) :]:
        axes.set_visible(False)
    handles = {
        label: line for axes in panels for line, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=2, frameon=False, fontsize=10)
    write_picture(figure, path)


def draw(axes: Axes, row: dict[str, Any]) -> None:
    """The series of one network."""
    figure = next(iter(next(each for each in row["ways"].values() if "task" in each)["task"]))
    for series, style in SERIES.items():
        found = {way: each for way, each in row["ways"].items() if way.startswith(series) and "task" in each}
        x = [100 * each["nbytes"] / row["float_nbytes"] for each in found.values()]
        y = [100 * each["task"][figure] for each in found.values()]
        axes.plot(x, y, label=LABELS[series], **style)
        for way, place in zip(found, zip(x, y, strict=True), strict=True):
            if series == "muquant":
                axes.annotate(
                    way.split()[1], place, (0, 7), textcoords="offset points", ha="center", fontsize=9
                )
    axes.axhline(100, color="#e5e7eb", linewidth=1, zorder=0)
    axes.set_ylim(-4, 115)
    axes.set_xlim(0, 60)
    axes.set_ylabel(f"{figure}, %", fontsize=10)
    axes.set_xlabel("size of the file, % of float", fontsize=10)
    axes.tick_params(labelsize=9, labelbottom=True, labelleft=True)
    axes.spines[["top", "right"]].set_visible(False)
