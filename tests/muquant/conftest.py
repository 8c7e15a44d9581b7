"""Forms that weights take, and the step of each of their elements without any of the code under test."""

import itertools
from typing import Any

import numpy as np

GRANULARITIES = ["tensor", "channel", "group:1", "group:4", "group:1000"]
FORMATS = [
    (bits, levels, mu, grid)
    for bits in range(2, 9)
    for levels in ("mid-rise", "mid-tread")
    for mu in (0.0, 5.0, 255.0)
    for grid in ("auto", "int4")
    if grid == "auto" or bits <= 4
]


def reference_step(step: Any, granularity: str, shape: tuple[int, ...], *axes: int, groups: int = 1) -> Any:
    """The step of each weight, by going through the weights one at a time.

    Channels are the places along `axes`, and with groups the run of axis 0 before them.
    """
    wide = np.empty(shape, np.float32)
    first = [range(groups)] if groups > 1 else []
    places = itertools.product(*first, *(range(shape[axis]) for axis in axes))
    number = {place: channel for channel, place in enumerate(places)}
    inputs_seen = dict.fromkeys(number.values(), 0)
    for index in np.ndindex(*shape):
        block = [index[0] // (shape[0] // groups)] if groups > 1 else []
        channel = number[*block, *(index[axis] for axis in axes)]
        place = inputs_seen[channel]  # index runs in row-major order, so a channel's inputs come in theirs
        inputs_seen[channel] += 1
        if granularity == "tensor":
            wide[index] = step[0, 0]
        elif granularity == "channel":
            wide[index] = step[channel, 0]
        else:
            wide[index] = step[channel, place // int(granularity[6:])]
    return wide
