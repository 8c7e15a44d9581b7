"""The picture of `runtime_peers.py`: each variant over the float file, for every network."""

from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from runtime_files import FLOAT, VARIANTS
from runtime_models import CNN4, ENCODER, LARGE, LINEAR, MLP, WRN

from muquant.base.picture import write_picture

PANELS = {
    "nbytes": "size of the file",
    "load_seconds": "time to load",
    "settled_bytes": "memory, settled",
    "latency_1_ms": "time to answer, batch 1",
    "latency_32_ms": "time to answer, batch 32",
}
"""Measure -> its name in the picture."""
MARKS = {
    MLP: ("#2563eb", "o"),
    LINEAR: ("#0891b2", "s"),
    LARGE: ("#111827", "D"),
    ENCODER: ("#ea580c", "^"),
    CNN4: ("#16a34a", "v"),
    WRN: ("#9333ea", "P"),
}
"""Network -> colour and marker."""
LEAST_BYTES = 4e6
"""Networks whose float file adds less memory than this are too small for ratios of it."""


def plot_runtime(models: dict[str, Any], path: Path) -> None:
    """Draw a panel for each measure: a row for each variant, and a mark for each network."""
    names = [name for name in VARIANTS if name != FLOAT and measured(models, name)]
    figure = Figure(figsize=(16, 5.6), layout="constrained")
    for axes, (measure, title) in zip(
        figure.subplots(1, len(PANELS), sharey=True), PANELS.items(), strict=True
    ):
        for network, (colour, marker) in MARKS.items():
            found = ratios(models[network]["variants"], measure) if network in models else {}
            places = [names.index(name) + offset(network) for name in found]
            axes.plot(
                list(found.values()), places, marker, color=colour, markersize=6, alpha=0.9, label=network
            )
        finish(axes, title, names)
    handles, labels = figure.axes[0].get_legend_handles_labels()
    kept = [(handle, label) for handle, label in zip(handles, labels, strict=True) if label in models]
    figure.legend(*zip(*kept, strict=True), loc="outside lower center", ncols=len(kept), frameon=False)
    figure.suptitle("Times the float file; further left is better", fontsize=11)
    write_picture(figure, path)


def measured(models: dict[str, Any], name: str) -> bool:
    """Whether any network has figures of a variant."""
    return any("failed" not in model["variants"][name] for model in models.values())


def offset(network: str) -> float:
    """The place of a network's mark within its row."""
    return 0.13 * (list(MARKS).index(network) - (len(MARKS) - 1) / 2)


def ratios(variants: dict[str, Any], measure: str) -> dict[str, float]:
    """Variant -> how many times the float file, where there is such a figure."""
    reference = variants[FLOAT]
    if measure == "settled_bytes" and reference[measure]["median"] < LEAST_BYTES:
        return {}
    found = {}
    for name, figures in variants.items():
        if name != FLOAT and measure in figures:
            value = figures[measure]
            found[name] = value["over_float"] if isinstance(value, dict) else value / reference[measure]
    return found


def finish(axes: Axes, title: str, names: list[str]) -> None:
    """A logarithmic axis with a line at 1, and the names of rows."""
    axes.set_xscale("log")
    axes.axvline(1, color="#6b7280", linewidth=1)
    for place in range(0, len(names), 2):
        axes.axhspan(place - 0.5, place + 0.5, color="#f3f4f6", zorder=0)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_title(title, fontsize=10, loc="left")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(axis="x", labelsize=8, rotation=60)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", color="#e5e7eb")
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
