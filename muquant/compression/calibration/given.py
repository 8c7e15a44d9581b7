"""Samples as people have them, read once."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor
from torch.utils.data import IterableDataset

from muquant.base.errors import InputError, first_line, naming
from muquant.compression.calibration.batches import BATCH_SIZE, HELD_OUT, Samples, batch_of_one, rows_of
from muquant.models.calls import Example, Inputs

Calibration = Example | Iterable[Example]
"""Samples: an `Example` of all of them, or batches of them, each an `Example` of its own.

A tensor, an array, a dict or a tuple is one example. A list, a generator, a DataLoader or another iterable
yields batches, of any sizes, each run as it is. A data set, which is no sequence but has indices, yields lone
samples, without the axis of the batch. Of a tuple or list (x, y) what the model has no argument for is left
out: labels are of no use. A list of lone tensors may also be a model's inputs in order, where it has several.
"""

MOST = 512
"""Samples that are read of an iterable that is not in memory; a data set's lie evenly over all of it."""


def read_samples(calibration: object, most: int = MOST) -> Samples:
    """Read a `Calibration`, `Samples` or an `Inputs`.

    Args:
        calibration: of an iterable that is no list, batches are read until there are `most` samples.
        most: samples, 1 or more.

    Raises:
        InputError: it is none, or a batch of it cannot be used.
    """
    if isinstance(calibration, Samples):
        return calibration
    if isinstance(calibration, Inputs):
        return Samples((calibration,), whole=True)
    if isinstance(calibration, Tensor | np.ndarray | Mapping | tuple | str | bytes) or not _iterable(
        calibration
    ):
        with naming("calibration"):
            return Samples((_plain(Inputs.of(calibration)),), whole=True)
    in_memory = isinstance(calibration, Sequence)
    single = hasattr(calibration, "__getitem__") and not isinstance(calibration, Sequence | IterableDataset)
    items = _items(calibration, single, most)
    parts: list[Inputs] = []
    count, lone = 0, isinstance(calibration, list)
    for number, item in enumerate(_caught(items)):
        with naming(f"calibration: batch {number}"):
            inputs = _plain(_read(item))
            if single:
                inputs = batch_of_one(inputs, [True] * len(inputs.tensors))
            elif not in_memory:  # what yields them may use their memory again
                inputs = inputs.map(Tensor.clone)
            if parts and inputs.names != parts[0].names:
                raise InputError(
                    f"expected inputs {', '.join(parts[0].names) or 'in order'}, as in batch 0, found "
                    f"{', '.join(inputs.names) or 'none with names'}; give the same in all"
                )
        lone = lone and isinstance(item, Tensor | np.ndarray)
        parts.append(inputs)
        count += rows_of(inputs)
        if count >= most and not in_memory:
            break
    if not parts:
        raise InputError(f"calibration: expected at least {HELD_OUT} samples, found none; give more")
    found = Samples(tuple(parts), lone=lone and len(parts) > 1)
    return replace(found, parts=tuple(found.rebatched(BATCH_SIZE))) if single else found


def _iterable(value: object) -> bool:
    return hasattr(value, "__iter__") or hasattr(value, "__getitem__")


def _items(calibration: Any, single: bool, most: int) -> Iterator[Any]:
    """Yield what there is; of a data set `most` samples, evenly over the whole."""
    if not single or not hasattr(calibration, "__len__"):
        yield from calibration
        return
    there = len(calibration)
    taken = min(there, most)
    for number in range(taken):
        yield calibration[number * there // taken]


def _caught(items: Iterator[Any]) -> Iterator[Any]:
    """Yield `items`, whatever they raise as an `InputError`."""
    number = 0
    while True:
        try:
            item = next(items)
        except StopIteration:
            return
        except Exception as error:  # whatever the user's code raises
            raise InputError(
                f"calibration: batch {number} raised {type(error).__name__}: {first_line(error)}; mend it"
            ) from error
        yield item
        number += 1


def _read(item: Any) -> Inputs:
    """Read a batch; of (x, y) what can be no input is left out."""
    if not isinstance(item, tuple | list):
        return Inputs.of(item)
    if len(item) == 2 and isinstance(item[0], Mapping | tuple | list):
        return Inputs.of(item[0])
    for count in range(len(item), 1, -1):
        try:
            return Inputs.of(tuple(item[:count]))
        except InputError:  # a label that is a text, for one
            continue
    return Inputs.of(tuple(item[:1]))


def _plain(inputs: Inputs) -> Inputs:
    """The same values, free of graphs and devices."""
    return inputs.map(lambda tensor: tensor.detach().cpu())
