"""The pictures of the ablations."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from muquant.base.picture import BLACK, BLUE, GREY, ORANGE, write_picture
from muquant.compression.amplification import Amplification
from paper.ablations import DOMAINS, LAYERS, LOSSES, MUS

COLOURS = {"mapped": ORANGE, "decoded": BLUE, "source": ORANGE, "ours": BLUE}
DASHES = {"ce": "--", "margin": "-"}
LAYERS_IN_WORDS = dict(zip(LAYERS, ("last layer", "last 2 layers", "last 3 layers"), strict=True))
GRID = "#e5e7eb"


def plot_mapping(networks: dict[str, Any], path: Path, epsilon: str) -> None:
    """Accuracy against mu: a row for each network, a column for the layers that are mapped."""
    figure = Figure(figsize=(11, 2.6 * len(networks) + 0.8), layout="constrained")
    grid = figure.subplots(len(networks), len(LAYERS), sharex=True, sharey=True, squeeze=False)
    for (name, network), line in zip(networks.items(), grid, strict=True):
        for layers, axes in zip(LAYERS, line, strict=True):
            for domain in DOMAINS:
                found = [each for each in network["mapping"] if each["layers"] == layers]
                found = [each for each in found if each["domain"] == domain]
                _accuracies(axes, found, "mu", domain)
            axes.set_xscale("log")
            axes.set_xticks(MUS, [f"{mu:g}" for mu in MUS])
            axes.minorticks_off()
            _finish(axes, f"{name}, {LAYERS_IN_WORDS[layers]}")
    for axes in grid[-1]:
        axes.set_xlabel("mu")
    _legend(figure, f"Accuracy in %, PGD at Linf {epsilon}, the named layers at 3 bits, others float", path)


def plot_widths(networks: dict[str, Any], path: Path, epsilons: dict[str, str]) -> None:
    """Accuracy against bits: a panel for each network."""
    figure = Figure(figsize=(11, 3.6), layout="constrained")
    for (name, network), axes in zip(networks.items(), _panels(figure, len(networks)), strict=True):
        for quantizer in ("source", "ours"):
            found = [each for each in network["widths"] if each["quantizer"] == quantizer]
            _accuracies(axes, found, "bits", quantizer)
        axes.set_xlabel("bits, all layers")
        _finish(axes, f"{name}, Linf {epsilons[name]}")
    _legend(figure, "Accuracy in %, rounded after training, without samples", path)


def plot_lipschitz(networks: dict[str, Any], path: Path) -> None:
    """||dW||_2 of each layer: a panel for each network."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    kinds = {
        "before": ("source's 3 bits", ORANGE),
        "after": ("mapped first, source's 3 bits", BLACK),
        "ours": ("our 3 bits", BLUE),
    }
    for (name, network), axes in zip(networks.items(), _panels(figure, len(networks)), strict=True):
        rows = network["lipschitz"]
        place = np.arange(len(rows))
        for offset, (kind, (words, colour)) in zip((-0.27, 0.0, 0.27), kinds.items(), strict=True):
            axes.bar(place + offset, [row[kind] for row in rows], 0.25, color=colour, label=words)
        axes.axhline(1.0, color=GREY, linewidth=1, linestyle="--")
        axes.set_yscale("log")
        names = [row["layer"].removesuffix(".weight") for row in rows]
        axes.set_xticks(place, names, fontsize=8, rotation=0 if len(names) < 6 else 90)
        _finish(axes, name)
    _legend(figure, "||dW||_2 of each layer; above the dashed line errors may grow", path)


def plot_growth(networks: dict[str, dict[str, Amplification]], path: Path) -> None:
    """Relative error of each layer's output under attack: a panel for each network."""
    figure = Figure(figsize=(11, 3.8), layout="constrained")
    for (name, forms), axes in zip(networks.items(), _panels(figure, len(networks)), strict=True):
        layers = forms["ours"].layers
        attacked = [100 * layer.perturbed for layer in layers]
        axes.plot(attacked, "-", color=GREY, marker="o", ms=4, label="float, adversarial images")
        for form, found in forms.items():
            clean = [100 * layer.quantized.total for layer in found.layers]
            both = [100 * layer.both.total for layer in found.layers]
            axes.plot(clean, ":", color=COLOURS[form], label=f"{form} at 3 bits, clean images")
            label = f"{form} at 3 bits, adversarial images"
            axes.plot(both, "-", color=COLOURS[form], marker="o", ms=4, label=label)
        axes.set_yscale("log")
        names = [layer.name for layer in layers]
        axes.set_xticks(range(len(names)), names, fontsize=8, rotation=0 if len(names) < 6 else 90)
        _finish(axes, name)
    _legend(figure, "Error of each layer's output in % of the float network's on clean images", path)


def _panels(figure: Figure, count: int) -> Iterator[Axes]:
    """So many side by side, of one also."""
    yield from figure.subplots(1, count, sharey=True, squeeze=False)[0]


def _accuracies(axes: Axes, found: list[dict[str, Any]], varied: str, name: str) -> None:
    """Accuracy under PGD on either loss, and on clean images, against what is varied."""
    places, colour = [each[varied] for each in found], COLOURS[name]
    for loss, words in LOSSES.items():
        values = [100 * each[loss] for each in found]
        label = f"{name}, PGD on the {words}"
        axes.plot(places, values, DASHES[loss], color=colour, marker="o", ms=4, label=label)
    axes.plot(places, [100 * each["clean"] for each in found], ":", color=colour, label=f"{name}, clean")


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(axis="y", color=GRID)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _legend(figure: Figure, title: str, path: Path) -> None:
    handles, labels = figure.axes[0].get_legend_handles_labels()
    columns = min(len(labels), 3)
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False, fontsize=9)
    figure.suptitle(title, fontsize=11)
    write_picture(figure, path)
