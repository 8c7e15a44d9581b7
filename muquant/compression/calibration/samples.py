"""Calibration samples: some to fit codes to, others to judge by, and the moments that layers see of both."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import nn

from muquant.base.errors import InputError
from muquant.compression.calibration.collect import collect_moments
from muquant.compression.layers import Weight
from muquant.models.calls import Example, Inputs
from muquant.quantization.moments import InputMoments, Moments

W = TypeVar("W")
"""A weight, of a module or of a graph."""

HELD_OUT = 4
"""Every so many-th sample is held out."""
MEMORY = 2**30
"""Bytes of moments at a time; a network that needs more is run several times."""


def split(calibration: Example) -> tuple[Inputs, Inputs]:
    """Return the samples [N, ...] to fit to, and those held out.

    Negative infinity passes, which masks are made of: where it reaches a layer, `MomentSums` refuses it.

    Raises:
        InputError: there are fewer than 4, their tensors disagree in number, or one holds NaN or infinity.
    """
    inputs = Inputs.of(calibration)
    count = inputs.count
    if count < HELD_OUT:
        raise InputError(f"calibration: expected at least {HELD_OUT} samples, found {count}; give more")
    for name, tensor in zip(inputs.names or range(len(inputs.tensors)), inputs.tensors, strict=True):
        wrong = tensor.isnan() | tensor.isposinf() if tensor.is_floating_point() else None
        if wrong is not None and wrong.any():
            first = int(wrong.nonzero()[0, 0])
            raise InputError(
                f"calibration: input {name}: expected finite numbers, found NaN or infinity in sample "
                f"{first}; mend it or leave it out"
            )
    held_out = torch.arange(count) % HELD_OUT == HELD_OUT - 1
    return inputs.map(lambda tensor: tensor[~held_out]), inputs.map(lambda tensor: tensor[held_out])


def samples_of(
    model: nn.Module,
    weights: Sequence[Weight],
    samples: tuple[Inputs, Inputs] | None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[Weight, InputMoments | None, str]]:
    """Yield each of `weights` with what is known of its inputs, and else why that is not known.

    The model is run once for as many weights as fit in memory.

    Args:
        model: in evaluation mode, on the CPU; it must not change while weights are yielded.
        weights: of `model`.
        samples: [N, ...] to fit to and held out, see `split`; None where nothing is known of any inputs.
        on_batch: called as in `collect_moments`.

    Raises:
        InputError: the model does not run on the samples, or makes NaN, infinity or too large numbers of
            them.
    """
    sizes = {weight: weight.channels.moments(tuple(weight.value.shape)) for weight in weights}
    return in_parts(sizes, samples, lambda part, own: collect_moments(model, part, own, on_batch=on_batch))


def in_parts(
    sizes: Mapping[W, int],
    samples: tuple[Inputs, Inputs] | None,
    collect: Callable[[list[W], Inputs], dict[W, Moments | str]],
) -> Iterator[tuple[W, InputMoments | None, str]]:
    """Yield weights with what is known of their inputs, collected for a few weights at a time, and where
    nothing is known although there are samples, why.

    Args:
        sizes: weight -> numbers of its second moments.
        samples: [N, ...] to fit to and held out, see `split`; or None.
        collect: returns for each of some weights its moments, or why they cannot be known.
    """
    if samples is None:
        yield from ((weight, None, "") for weight in sizes)
        return
    for part in _parts(sizes):
        fit, held_out = (collect(part, own) for own in samples)
        for weight in part:
            one, other = fit.pop(weight), held_out.pop(weight)
            if isinstance(one, str) or isinstance(other, str):
                yield weight, None, one if isinstance(one, str) else str(other)
            else:
                yield weight, InputMoments(one, other), ""


def _parts(sizes: Mapping[W, int]) -> Iterator[list[W]]:
    part: list[W] = []
    size = 0
    for weight, count in sizes.items():
        own = 2 * 4 * count
        if part and size + own > MEMORY:
            yield part
            part, size = [], 0
        part.append(weight)
        size += own
    if part:
        yield part
