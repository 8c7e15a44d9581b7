"""Pictures of feedback learning: its examples, and how the margins of the classes move."""

import os
from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from muquant.base.errors import InputError
from muquant.base.picture import check_format, write_picture
from muquant.data import Dataset
from muquant.training.feedback.round import FeedbackRound

MAX_ROWS, EXAMPLES_PER_SEED = 10, 4
_FIRST, _LAST = np.array([0.604, 0.655, 0.706]), np.array([0.761, 0.255, 0.047])  # #9aa7b4 to #c2410c


def plot_examples(feedback: FeedbackRound, dataset: Dataset, path: str | os.PathLike[str]) -> None:
    """Draw seed samples, examples made from them, and what was added to each; whole file or none.

    One row for the seed with the most examples of each class that has any, at most `MAX_ROWS`: the seed, then
    `EXAMPLES_PER_SEED` pairs of an example, spread evenly over its nearest directions, and its difference
    from the seed, the mean of the channels: red where light was added, blue where it was taken.

    Args:
        feedback: a round.
        dataset: the one it was made from.
        path: of the picture: .png, .svg or .pdf.

    Raises:
        InputError: the name ends in something else, the file cannot be written, or the round has no examples
            or was made from another data set.
    """
    check_format(path)
    if not len(feedback):
        raise InputError(f"cannot draw {path}: expected a round with examples, found none in it")
    if int(feedback.sources.max()) >= len(dataset) or not bool(
        (dataset.labels[feedback.sources] == feedback.labels).all()
    ):
        raise InputError(f"cannot draw {path}: the round was made from other data; give the data set it has")
    seeds = [
        _fullest(feedback.sources[members])
        for label in range(len(dataset.classes))
        if (members := feedback.labels == label).any()
    ][:MAX_ROWS]
    columns = 1 + 2 * EXAMPLES_PER_SEED
    figure = Figure(figsize=(1.05 * columns, 1.25 * len(seeds) + 0.3), layout="constrained")
    figure.suptitle(
        f"round {feedback.number}: seed, then examples (factor x margin) and what was added", fontsize=9
    )
    for seed, row in zip(seeds, figure.subplots(len(seeds), columns, squeeze=False), strict=True):
        _row(list(row), seed, feedback, dataset)
    write_picture(figure, path)


def plot_class_margins(
    margins: Mapping[str, Tensor], classes: Sequence[str], cap: float, path: str | os.PathLike[str]
) -> None:
    """Draw the median margin of each class at several times, such as before and after each round.

    A class that has no margin, because most of its samples keep their label up to the cap, is drawn at the
    cap as a hollow triangle.

    Args:
        margins: what is said of a time -> float [classes], L2, in the order in which they are to be drawn.
        classes: their names.
        cap: L2 up to which margins were looked for.
        path: of the picture: .png, .svg or .pdf.

    Raises:
        InputError: the name ends in something else, the file cannot be written, or the numbers of classes
            differ.
    """
    check_format(path)
    for name, values in margins.items():
        if values.shape != (len(classes),):
            raise InputError(
                f"cannot draw {path}: expected a margin for each of {len(classes)} classes, found "
                f"{list(values.shape)} for {name!r}; give one for each"
            )
    figure = Figure(figsize=(max(5.0, 1.8 + 0.55 * len(classes)), 3.2), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(classes))
    for number, (name, values) in enumerate(margins.items()):
        share = number / max(len(margins) - 1, 1)
        colour = tuple((1 - share) * _FIRST + share * _LAST)
        shift = 0.5 * (share - 0.5) if len(margins) > 1 else 0.0
        heights = values.double().numpy()
        within = np.isfinite(heights)
        axes.vlines(places[within] + shift, 0, heights[within], color=colour, linewidth=1, alpha=0.5)
        axes.plot(places[within] + shift, heights[within], "o", color=colour, markersize=5, label=name)
        axes.plot(places[~within] + shift, np.full((~within).sum(), cap), "^", color=colour, fillstyle="none")
    axes.axhline(cap, color="#d0d0d0", linewidth=0.8, zorder=0)
    axes.text(-0.55, 1.05 * cap, "label kept up to here", fontsize=7, color="#808080", va="bottom")
    axes.set_xticks(places, classes, rotation=0 if max(map(len, classes)) < 4 else 40)
    axes.set_xlim(-0.6, len(classes) - 0.4)
    axes.set_ylim(0, 1.13 * cap)
    axes.set_xlabel("class", fontsize=8)
    axes.set_ylabel("median margin, L2", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=max(1, len(margins)), fontsize=8, frameon=False)
    write_picture(figure, path)


def _fullest(sources: Tensor) -> int:
    """The seed that most examples come from; of equal ones the first in the data set."""
    return int(sources.bincount().argmax())


def _row(panels: list[Axes], seed: int, feedback: FeedbackRound, dataset: Dataset) -> None:
    for axes in panels:
        axes.set_axis_off()
    image = dataset.images[seed]
    _show(panels[0], image.numpy())
    panels[0].set_title(f"class {dataset.classes[int(dataset.labels[seed])]}", fontsize=8)
    examples = (feedback.sources == seed).nonzero()[:, 0]
    count = min(EXAMPLES_PER_SEED, len(examples))
    shown = examples[[number * len(examples) // count for number in range(count)]]
    for pair, example in enumerate(shown.tolist()):
        left, right = panels[1 + 2 * pair], panels[2 + 2 * pair]
        _show(left, feedback.images[example].numpy())
        left.set_title(
            f"{float(feedback.factors[example]):.2f} x {float(feedback.margins[example]):.1f}", fontsize=7
        )
        difference = (feedback.images[example].double() - image.double()).mean(0)
        right.imshow(difference.numpy(), cmap="RdBu_r", vmin=-255, vmax=255, interpolation="nearest")


def _show(axes: Axes, image: NDArray[np.uint8]) -> None:
    """An image [C, H, W]: in grey, or in colour where it has three channels; of others the first."""
    if len(image) == 3:
        axes.imshow(image.transpose(1, 2, 0), interpolation="nearest")
    else:
        axes.imshow(image[0], cmap="gray", vmin=0, vmax=255, interpolation="nearest")
