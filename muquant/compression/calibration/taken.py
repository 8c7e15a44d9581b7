"""Samples as a model takes them: without labels, in its batches, in its type."""

from dataclasses import replace
from typing import Any

import torch

from muquant.base.errors import InputError
from muquant.compression.calibration.batches import HELD_OUT, Samples, batch_of_one
from muquant.models.arguments import Arguments
from muquant.models.calls import Inputs


def taken_by(samples: Samples, arguments: Arguments) -> Samples:
    """Return samples as a model with these arguments takes them.

    Labels, for which it has no argument, are left out. Where the ranks of its inputs are known, single
    samples become batches of one, and a model that knows no batches is given the samples one by one.

    Raises:
        InputError: it cannot be told which of the tensors of a batch, or of a list, it takes.
    """
    if samples.taken:
        return samples
    samples = _in_order(samples, arguments) if samples.lone else samples
    parts = [_without_labels(part, arguments, batch=not samples.whole) for part in samples.parts]
    return _with_ranks(replace(samples, parts=tuple(parts), taken=True), arguments)


def in_float32(samples: Samples) -> Samples:
    """Return samples with floats of that type alone, which compressed models compute with.

    Raises:
        InputError: a number is too large for it.
    """
    return replace(samples, parts=tuple(map(_in_float32, samples.parts)))


def _in_order(samples: Samples, arguments: Arguments) -> Samples:
    """Decide whether the tensors of a list are batches or the inputs of one call."""
    count, most = len(samples.parts), arguments.most
    if most is None or arguments.least <= 1 < count <= most:
        sizes = {part.tensors[0].shape[:1] for part in samples.parts}
        if (
            len(sizes) == 1
            and samples.parts[0].tensors[0].dim()
            and len(samples.parts[0].tensors[0]) >= HELD_OUT
        ):
            raise InputError(
                f"calibration: a list of {count} tensors may be so many batches, or inputs in order; give "
                "a dict or a tuple of inputs, or a list of dicts or tuples, one for each batch"
            )
    elif 1 < arguments.least <= count <= most:
        tensors = tuple(tensor for part in samples.parts for tensor in part.tensors)
        return replace(samples, parts=(Inputs(tensors),), whole=True, lone=False)
    return replace(samples, lone=False)


def _without_labels(inputs: Inputs, arguments: Arguments, *, batch: bool) -> Inputs:
    """Leave out what a model has no argument for.

    Args:
        inputs: by name these are left as they are.
        arguments: of the model.
        batch: whether they are a batch, which often brings labels, and not arrays of all samples.
    """
    most = arguments.most
    if inputs.names or most is None:
        return inputs
    given: tuple[Any, ...] = inputs.example  # type: ignore[assignment]  # in order
    if len(given) > most:
        taken = Inputs.of(given[:most])
        known = None if inputs.known_axes is None else inputs.known_axes[: len(taken.tensors)]
        return replace(taken, known_axes=known)
    if batch and max(arguments.least, 1) < len(given):
        optional = ", ".join(arguments.names[max(arguments.least, 1) : len(given)])
        raise InputError(
            f"calibration: a batch has {len(given)} tensors, of which labels may be the last, or {optional}; "
            "give batches as dicts of inputs by name"
        )
    return inputs


def _with_ranks(samples: Samples, arguments: Arguments) -> Samples:
    """Add the axis of a batch to single samples, or take arrays of all samples one by one, where the model's
    inputs have one axis more, or less, than those."""

    def ranks(part: Inputs) -> list[int | None]:
        names = part.names or arguments.names[: len(part.tensors)]
        return [arguments.ranks.get(name) for name in names]

    def over(part: Inputs) -> set[int | None]:
        pairs = zip(part.tensors, ranks(part), strict=True)
        return {None if rank is None else tensor.dim() - rank for tensor, rank in pairs if rank != 0}

    def narrowed(part: Inputs) -> Inputs:
        pairs = zip(part.tensors, part.axes, strict=True)
        tensors = [tensor if axis is None else tensor.squeeze(axis) for tensor, axis in pairs]
        return replace(part, tensors=tuple(tensors), known_axes=(None,) * len(tensors))

    if not arguments.ranks:
        return samples
    if not samples.whole and all(over(part) == {-1} for part in samples.parts):
        wider = [batch_of_one(part, [rank != 0 for rank in ranks(part)]) for part in samples.parts]
        return replace(samples, parts=tuple(wider))
    if samples.whole and over(samples.parts[0]) == {1}:
        return replace(samples, parts=tuple(map(narrowed, samples.parts[0].batches(1))), whole=False)
    return samples


def _in_float32(inputs: Inputs) -> Inputs:
    tensors = [tensor.float() if tensor.is_floating_point() else tensor for tensor in inputs.tensors]
    for place, (old, new) in enumerate(zip(inputs.tensors, tensors, strict=True)):
        if old.dtype == torch.float64 and bool((new.isinf() & old.isfinite()).any()):
            raise InputError(
                f"calibration: input {inputs.names[place] if inputs.names else place}: expected numbers that "
                f"float32 holds, found up to {float(old.abs().max()):.3g}; scale them"
            )
    return replace(inputs, tensors=tuple(tensors))
