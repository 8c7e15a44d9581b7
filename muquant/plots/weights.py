"""Where the levels of compressed weights lie."""

import os
from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from muquant.companding import grid_levels
from muquant.errors import InputError
from muquant.plots.picture import GREY, ORANGE, check_format, write_picture
from muquant.tensor import QuantizedTensor, spread

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
        scale = spread(quantized.step, spec, quantized.shape, quantized.channel_axis) * spec.grid_max
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
