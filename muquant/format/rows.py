"""A weight laid out as rows that share a step, and back; and steps spread over a weight."""

from collections.abc import Iterator

import torch
from torch import Tensor

from muquant.format.channels import Channels
from muquant.format.spec import MuLawSpec

CHUNK = 2**18
"""Weights handled at a time: temporaries of this size stay in the processor's cache."""


def to_rows(weight: Tensor, spec: MuLawSpec, channels: Channels) -> Tensor:
    """Lay a weight out as rows whose weights share a step (for "tensor" all rows share one).

    The weight becomes a matrix [channels, inputs], see `to_matrix`; with groups each channel is cut into rows
    of `group_size` (of all inputs, where there are fewer), the last one padded with zeros.
    """
    matrix = to_matrix(weight, channels)
    if spec.steps.kind != "group":
        return matrix
    size = _row_size(spec, matrix.shape[1])
    if missing := -matrix.shape[1] % size:
        matrix = torch.nn.functional.pad(matrix, (0, missing))
    return matrix.reshape(-1, size)


def from_rows(rows: Tensor, spec: MuLawSpec, shape: tuple[int, ...], channels: Channels) -> Tensor:
    """Undo `to_rows` for a weight of `shape`."""
    if spec.steps.kind == "group":
        count = channels.count(shape)
        rows = rows.reshape(count, rows.numel() // max(count, 1))[:, : channels.inputs(shape)]
    return from_matrix(rows, shape, channels)


def spread(step: Tensor, spec: MuLawSpec, shape: tuple[int, ...], channels: Channels) -> Tensor:
    """Return steps or scales (`Granularity.step_shape`) broadcasting against a weight of `shape`."""
    if spec.steps.kind == "tensor":
        return step.reshape(())
    if spec.steps.kind == "channel":
        wide = step.reshape(channels.wide(shape))
        if channels.groups == 1:
            return wide
        return wide.expand(-1, channels.blocked(shape)[1], *wide.shape[2:]).flatten(0, 1)
    rows = step.reshape(-1, 1).expand(-1, _row_size(spec, channels.inputs(shape)))
    return from_rows(rows, spec, shape, channels)


def to_matrix(weight: Tensor, channels: Channels) -> Tensor:
    """View a weight as a matrix [channels, inputs]: a copy where its memory does not allow that."""
    shape = tuple(weight.shape)
    blocked = weight.reshape(channels.blocked(shape))
    return blocked.permute(channels.order(shape)).reshape(channels.count(shape), channels.inputs(shape))


def from_matrix(matrix: Tensor, shape: tuple[int, ...], channels: Channels) -> Tensor:
    """Undo `to_matrix` for a weight of `shape`."""
    return matrix.reshape(channels.ordered(shape)).permute(channels.back(shape)).reshape(shape)


def row_chunks(matrix: Tensor) -> Iterator[slice]:
    """Yield slices of the rows of `matrix`, about `CHUNK` weights each."""
    rows = max(1, CHUNK // max(1, matrix.shape[1]))
    for start in range(0, matrix.shape[0], rows):
        yield slice(start, start + rows)


def _row_size(spec: MuLawSpec, inputs: int) -> int:
    return max(min(spec.steps.group_size, inputs), 1)
