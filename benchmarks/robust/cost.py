"""What bits cost: by how much the control withstands more, of the same images."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from muquant.robustness.statistics import Z


def cost(entry: dict[str, Any], control: dict[str, Any]) -> tuple[float, float, float] | None:
    """Return by how much the control's AA standard is higher, and the 95 % interval, shares of the images.

    The images are those that both were attacked on: the interval is that of the difference of paired
    proportions (Agresti, Min, "Simple improved confidence intervals for comparing matched proportions", 2005:
    half an image is added to each of the four cells). None where there are no such images.
    """
    both = set(entry["figures"]["images"]) & set(control["figures"]["images"])
    if not both:
        return None
    fell, fell_there = _fell(entry) & both, _fell(control) & both
    lost, won, count = len(fell - fell_there), len(fell_there - fell), len(both)
    middle = (lost - won) / (count + 2)
    spread = math.sqrt((lost + won + 1) / (count + 2) - middle**2)
    reach = Z * spread / math.sqrt(count + 2)
    return (lost - won) / count, middle - reach, middle + reach


def mean_cost(
    entries: Sequence[dict[str, Any]], controls: Sequence[dict[str, Any]]
) -> tuple[float, float, float]:
    """Return the mean of the costs of several networks, each with its control, and its 95 % interval.

    The interval is by the spread over the images, each with the mean of its differences: all networks saw the
    same images. How much trainings differ is not in it.

    Raises:
        ValueError: they did not.
    """
    if len({tuple(each["figures"]["images"]) for each in (*entries, *controls)}) > 1:
        raise ValueError("networks were attacked on different images; give all of them the same --count")
    differences: Counter[int] = Counter()
    for entry, control in zip(entries, controls, strict=True):
        differences.update(_fell(entry))
        differences.subtract(_fell(control))
    count = entries[0]["figures"]["count"]
    values = np.zeros(count)  # an image that fell nowhere has no difference
    values[: len(differences)] = [each / len(entries) for each in differences.values()]
    mean, reach = float(values.mean()), Z * float(values.std(ddof=1)) / math.sqrt(count)
    return mean, mean - reach, mean + reach


def _fell(entry: dict[str, Any]) -> set[int]:
    return set(entry["figures"]["runtimes"]["torch"]["fell"])
