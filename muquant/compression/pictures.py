"""Where the levels of compressed weights lie."""

import os
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter
from torch import Tensor

from muquant.base.errors import InputError
from muquant.base.picture import BLACK, BLUE, GREY, ORANGE, check_format, write_picture
from muquant.compression.amplification import Amplification
from muquant.format.law import grid_levels
from muquant.format.rows import spread
from muquant.format.tensor import QuantizedTensor

MAX_PANELS = 40
_COLUMNS, _FEW_BITS = 2, 5


def plot_weights(
    tensors: Mapping[str, QuantizedTensor],
    path: str | os.PathLike[str],
    originals: Mapping[str, Tensor] | None = None,
) -> None:
    """Draw, for each weight, where its levels lie and how often each is used; whole file or none.

    Weights are divided by their scale, so that all channels share one axis and the outermost levels are at
    -1 and 1. The first `MAX_PANELS` weights are drawn.

    Args:
        tensors: weight name -> quantized weight.
        path: of the picture: .png, .svg or .pdf.
        originals: weight name -> float weight, whose histogram is drawn behind.

    Raises:
        InputError: the name ends in something else, the file cannot be written, or a float weight has another
            shape.
    """
    check_format(path)
    drawn = list(tensors.items())[:MAX_PANELS]
    rows = max(1, -(-len(drawn) // _COLUMNS))
    figure = Figure(figsize=(10, 0.6 + 2.2 * rows), layout="constrained")
    if len(drawn) < len(tensors):
        figure.suptitle(f"the first {len(drawn)} of {len(tensors)} weights")
    panels = list(figure.subplots(rows, _COLUMNS, squeeze=False).flat)
    for (name, quantized), axes in zip(drawn, panels, strict=False):
        _panel(axes, name, quantized, (originals or {}).get(name))
    for axes in panels[len(drawn) :]:
        axes.set_visible(False)
    write_picture(figure, path)


def _panel(axes: Axes, name: str, quantized: QuantizedTensor, original: Tensor | None) -> None:
    spec = quantized.spec
    levels = grid_levels(spec)[: spec.codes].numpy() / spec.grid_max
    counts = np.bincount(quantized.codes.numpy().reshape(-1), minlength=2**spec.bits)[: spec.codes]
    share = counts / max(quantized.codes.numel(), 1)
    if original is not None:
        if tuple(original.shape) != quantized.shape:
            raise InputError(
                f"{name} has shape {tuple(original.shape)} in the float model and {quantized.shape} in the "
                "compressed one; name the run that was compressed"
            )
        scale = spread(quantized.step, spec, quantized.shape, quantized.channels) * spec.grid_max
        ratio = (original.detach() / scale.where(scale > 0, 1.0)).reshape(-1).numpy()
        inside, edges = np.histogram(ratio, bins=160, range=(-2, 2))
        heights = inside / max(inside.max(), 1) * share.max(initial=0.0)
        axes.stairs(heights, edges, fill=True, color=GREY, label="weights")
    few = spec.bits <= _FEW_BITS
    axes.vlines(
        levels, 0, share, color=ORANGE, linewidth=2 if few else 0.8, label="levels, and share of codes"
    )
    if few:
        axes.plot(levels, share, "o", color=ORANGE, markersize=4)
    axes.set_title(f"{name}   {spec.bits} bits, mu {spec.mu:.3g}, {spec.domain}", fontsize=9, loc="left")
    axes.set_xlim(-2, 2) if original is not None else axes.set_xlim(-1.1, 1.1)
    axes.set_ylim(0, None)
    axes.set_xlabel("weight / scale", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)


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
