"""A weight laid out as rows that share a step, and back; and steps spread over a weight."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from muquant.format.spec import MuLawSpec

CHUNK = 2**18
"""Weights handled at a time: temporaries of this size stay in the processor's cache."""


def to_rows(weight: Tensor, spec: MuLawSpec, channel_axis: int) -> Tensor:
    """Lay a weight out as rows whose weights share a step (for "tensor" all rows share one).

    The weight becomes a matrix [channels, inputs], the channel axis first and the others flattened; with
    groups each channel is cut into rows of `group_size` (of all inputs, where there are fewer), the last one
    padded with zeros.
    """
    matrix = to_matrix(weight, channel_axis)
    if spec.steps.kind != "group":
        return matrix
    size = _row_size(spec, matrix.shape[1])
    if missing := -matrix.shape[1] % size:
        matrix = torch.nn.functional.pad(matrix, (0, missing))
    return matrix.reshape(-1, size)


def from_rows(rows: Tensor, spec: MuLawSpec, shape: tuple[int, ...], channel_axis: int) -> Tensor:
    """Undo `to_rows` for a weight of `shape`."""
    channels = shape[channel_axis]
    others = (*shape[:channel_axis], *shape[channel_axis + 1 :])
    if spec.steps.kind == "group":
        rows = rows.reshape(channels, rows.numel() // max(channels, 1))[:, : math.prod(others)]
    return rows.reshape(channels, *others).movedim(0, channel_axis)


def spread(step: Tensor, spec: MuLawSpec, shape: tuple[int, ...], channel_axis: int) -> Tensor:
    """Return steps or scales (`Granularity.step_shape`) broadcasting against a weight of `shape`."""
    if spec.steps.kind == "tensor":
        return step.reshape(())
    if spec.steps.kind == "channel":
        return step.reshape([-1 if axis == channel_axis else 1 for axis in range(len(shape))])
    inputs = math.prod(shape) // max(shape[channel_axis], 1)
    rows = step.reshape(-1, 1).expand(-1, _row_size(spec, inputs))
    return from_rows(rows, spec, shape, channel_axis)


def to_matrix(weight: Tensor, channel_axis: int) -> Tensor:
    """View a weight [..., channels, ...] as a matrix [channels, inputs]."""
    return weight.movedim(channel_axis, 0).flatten(1) if weight.dim() > 1 else weight[:, None]


def row_chunks(matrix: Tensor) -> Iterator[slice]:
    """Yield slices of the rows of `matrix`, about `CHUNK` weights each."""
    rows = max(1, CHUNK // max(1, matrix.shape[1]))
    for start in range(0, matrix.shape[0], rows):
        yield slice(start, start + rows)


def _row_size(spec: MuLawSpec, inputs: int) -> int:
    return max(min(spec.steps.group_size, inputs), 1)
