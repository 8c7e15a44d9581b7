"""How an error grows from layer to layer, and what it is made of."""

import os

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from muquant.plots.picture import BLACK, BLUE, GREY, ORANGE, write_picture
from muquant.sensitivity.amplification import Amplification

_TERMS = {
    "carried": ("W dx: carried in", BLUE),
    "quantization": ("dW x: quantization", ORANGE),
    "joint": ("dW dx: both together", GREY),
}
_INCHES_A_LAYER, _MOST_UPRIGHT = 0.55, 10


def plot_amplification(
    amplification: Amplification, path: str | os.PathLike[str], perturbation: str = "perturbed inputs"
) -> None:
    """Draw the relative error of every layer's output, and its three terms; whole file or none.

    Above, one curve for each of: the float network on perturbed inputs, the compressed one on clean inputs,
    the compressed one on perturbed inputs. Below, the terms of the last.

    Args:
        amplification: what was measured.
        path: of the picture: .png, .svg or .pdf.
        perturbation: what the perturbed inputs are, for the legend.

    Raises:
        InputError: the name ends in something else, or the file cannot be written.
    """
    layers = amplification.layers
    place = np.arange(len(layers))
    width = max(7.5, 1.5 + _INCHES_A_LAYER * len(layers))
    figure = Figure(figsize=(width, 7.5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True)

    curves = (
        (f"{perturbation}, compressed weights", [layer.both.total for layer in layers], BLACK),
        (f"{perturbation}, float weights", [layer.perturbed for layer in layers], BLUE),
        ("clean inputs, compressed weights", [layer.quantized.total for layer in layers], ORANGE),
    )
    for label, values, colour in curves:
        above.plot(place, values, color=colour, marker="o", markersize=5, linewidth=2, label=label)
    count = f"{amplification.count} clean input{'s' * (amplification.count != 1)}"
    _finish(above, f"Error of each layer's output, relative to the float network on {count}")

    for offset, (term, (label, colour)) in zip((-0.27, 0, 0.27), _TERMS.items(), strict=True):
        values = [getattr(layer.both, term) for layer in layers]
        below.bar(place + offset, values, 0.25, color=colour, label=label)
    _finish(below, "What the black curve is made of: delta = W dx + dW x + dW dx")
    upright = len(layers) <= _MOST_UPRIGHT
    names = [f"{layer.name}{chr(10) if upright else ', '}{_width(layer.bits)}" for layer in layers]
    below.set_xticks(place, names, fontsize=8, rotation=0 if upright else 90)
    write_picture(figure, path)


def _width(bits: int | None) -> str:
    return "float" if bits is None else f"{bits} bits"


def _finish(axes: Axes, title: str) -> None:
    axes.set_title(title, fontsize=10, loc="left")
    axes.set_ylim(0, 1.25 * axes.get_ylim()[1])  # room for the legend
    axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axes.tick_params(axis="y", labelsize=8)
    axes.grid(axis="y", color="#e5e7eb")
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=8, frameon=False, ncols=3, loc="upper left")
