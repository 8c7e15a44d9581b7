"""The differentiable decoder of fake quantization: forward the deployed weight, backward straight through.

A weight has millions of elements and is decoded at every step, so passes over it are what counts. All work is
done on chunks of rows that stay in the processor's cache, and two facts save passes:

- Levels are integers, so the boundaries between them are multiples of 1/2, and floor(2 w / step) says which
  level is nearest: one look-up in a table, for any width.
- Of the gradients by scale and mu only sums are wanted, so no tensor of them is ever stored.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from muquant.format.channels import Channels
from muquant.format.law import expand_slope, positions
from muquant.format.rows import from_rows, row_chunks, to_rows
from muquant.format.spec import MuLawSpec
from muquant.format.tensor import step_of
from muquant.quantization.places import Places

SAMPLE = 2**18
"""Weights from which the gradient by mu is taken, rows at even distances: one number for the whole tensor."""


class StraightThrough(torch.autograd.Function):
    """Nearest level forward; backward, the derivative of clip(w, -s, s) + s (L - clip(w / s)) with the codes
    held fixed.

    L is the unit level of the code and its residual against w / s is a constant, as in LSQ (Esser et al.,
    2020): so the weight's gradient passes inside the clipping range, the scale's is L - w / s inside and L
    outside, and mu's is s dL/dmu. Scale and mu are learned by their logarithms, so their gradients here are
    these times s and mu.
    """

    @staticmethod
    def forward(
        ctx: Any, weight: Tensor, log_scale: Tensor, log_mu: Tensor, spec: MuLawSpec, channels: Channels
    ) -> Tensor:
        """The decoded weight, in the shape and type of `weight`.

        Args:
            ctx: of autograd.
            weight: any shape.
            log_scale: `Granularity.step_shape`.
            log_mu: []; not read, `spec.mu` is its exponential.
            spec: its mu is a number.
            channels: which of the weights are one output channel.
        """
        layout, table = _Layout(weight, spec, channels), _Table(spec, weight.device)
        rows, step = layout.rows(weight), step_of(log_scale.exp(), spec).reshape(-1, 1)
        decoded = torch.empty(rows.shape, device=rows.device)
        levels = table.levels()
        for part, own in _chunks(rows, step):
            torch.mul(table.look_up(levels, rows[part], own), own, out=decoded[part])
        result = layout.weight(decoded).to(weight.dtype)
        ctx.spec, ctx.layout, ctx.table = spec, layout, table
        ctx.save_for_backward(weight, log_scale, step, result)
        return result

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients by weight, log scale and log mu."""
        layout, table, spec = ctx.layout, ctx.table, ctx.spec
        weight, log_scale, step, result = ctx.saved_tensors
        rows, decoded, upstream = layout.rows(weight), layout.rows(result), layout.rows(gradient)
        scale = log_scale.exp().reshape(-1, 1)
        through, by_scale = torch.empty_like(rows), torch.empty(len(rows), device=rows.device)
        for part, own in _chunks(rows, scale):
            values, above = rows[part], upstream[part]
            passing = torch.mul(above, values.abs().le_(own), out=through[part])
            by_scale[part] = (above * decoded[part]).addcmul_(passing, values, value=-1).sum(1)
        if spec.steps.kind == "tensor":
            by_scale = by_scale.sum()
        by_mu = None
        if ctx.needs_input_grad[2]:
            some = slice(None, None, max(1, rows.numel() // SAMPLE))
            own, near = (each if len(each) == 1 else each[some] for each in (scale, step))
            slope = table.look_up(table.slopes(), rows[some], near)
            share = len(slope) / len(rows)
            by_mu = slope.mul_(upstream[some]).mul_(own).sum() * (spec.mu / share)
        return layout.weight(through).to(weight.dtype), by_scale.reshape(log_scale.shape), by_mu, None, None


class _Table:
    """`Places` on a device, with what training wants to know of them."""

    def __init__(self, spec: MuLawSpec, device: torch.device) -> None:
        self._spec, self._places, self._device = spec, Places(spec), device

    def levels(self) -> Tensor:
        """The level at each place, float32 [places]."""
        return self._places.levels().to(self._device)

    def slopes(self) -> Tensor:
        """Its slope by mu in units of the scale, float32 [places]."""
        spec = self._spec
        by_code = expand_slope(positions(spec)[: spec.codes], spec.expansion_mu)
        return self._places.spread(by_code).to(self._device)

    def look_up(self, values: Tensor, rows: Tensor, step: Tensor) -> Tensor:
        """The entry of `values` at the nearest level, of a tie at the upper one.

        Args:
            values: [places].
            rows: of weights, [n, m].
            step: [n or 1, 1].
        """
        lowest, highest = self._places.lowest, self._places.highest
        half = torch.where(step > 0, step / 2, torch.inf)  # all weights of a zero scale count as zero
        place = (rows / half).floor_().clamp_(lowest, highest).int().sub_(lowest)
        place.clamp_(min=0)  # a NaN has become the smallest integer
        return values.index_select(0, place.reshape(-1)).reshape(rows.shape)


class _Layout:
    """A weight as rows that share a step, without a copy where its memory allows it.

    Within a row the order of weights is that of memory, such as channels last, unless groups are cut from it.
    """

    def __init__(self, weight: Tensor, spec: MuLawSpec, channels: Channels) -> None:
        self._whole = tuple(weight.shape)
        blocked = weight.reshape(channels.blocked(self._whole))
        count, order = len(channels.blocked_axes), channels.order(self._whole)
        others = list(order[count:])
        if spec.steps.kind != "group":
            others.sort(key=blocked.stride, reverse=True)
        self._blocked, self._order = blocked.shape, (*order[:count], *others)
        self._shape = tuple(blocked.shape[axis] for axis in self._order)
        self._channels = Channels(tuple(range(count)))
        self._strides = torch.empty_like(weight, device="meta").stride()  # its own, where it is dense
        self._spec = spec

    def rows(self, weight: Tensor) -> Tensor:
        """Float32 [rows, n], see `to_rows`."""
        blocked = weight.reshape(self._blocked)
        return to_rows(blocked.permute(self._order).float(), self._spec, self._channels)

    def weight(self, rows: Tensor) -> Tensor:
        """Undo `rows`; with the strides of the weight that was laid out, from which layers infer a format."""
        back = sorted(range(len(self._order)), key=self._order.__getitem__)
        weight = from_rows(rows, self._spec, self._shape, self._channels).permute(back).reshape(self._whole)
        if weight.stride() == self._strides:
            return weight
        return torch.empty_strided(weight.shape, self._strides, device=rows.device).copy_(weight)


def _chunks(rows: Tensor, column: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Slices of the rows, each with its part of `column` [rows or 1, 1]."""
    for part in row_chunks(rows):
        yield part, column if len(column) == 1 else column[part]
