"""Calibration samples: some to fit codes to, others to judge by, and the moments that layers see of both."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import torch
from torch import nn

from muquant.base.errors import InputError
from muquant.compression.calibration.collect import collect_moments
from muquant.compression.layers import Weight
from muquant.format.rows import to_matrix
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
) -> Iterator[tuple[Weight, InputMoments | None]]:
    """Yield each of `weights` with what is known of its inputs, or None where they cannot be known.

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
    inputs = {weight: to_matrix(weight.value, weight.channels).shape[1] for weight in weights}
    return in_parts(inputs, samples, lambda part, own: collect_moments(model, part, own, on_batch=on_batch))


def in_parts(
    inputs: Mapping[W, int],
    samples: tuple[Inputs, Inputs] | None,
    collect: Callable[[list[W], Inputs], dict[W, Moments]],
) -> Iterator[tuple[W, InputMoments | None]]:
    """Yield weights with what is known of their inputs, collected for a few weights at a time.

    Args:
        inputs: weight -> inputs of each of its channels.
        samples: [N, ...] to fit to and held out, see `split`; or None.
        collect: returns moments for those of some weights for which they can be known.
    """
    if samples is None:
        yield from ((weight, None) for weight in inputs)
        return
    for part in _parts(inputs):
        fit, held_out = (collect(part, own) for own in samples)
        for weight in part:
            known = weight in fit and weight in held_out
            yield weight, InputMoments(fit.pop(weight), held_out.pop(weight)) if known else None


def _parts(inputs: Mapping[W, int]) -> Iterator[list[W]]:
    part: list[W] = []
    size = 0
    for weight, count in inputs.items():
        own = 2 * 4 * count**2
        if part and size + own > MEMORY:
            yield part
            part, size = [], 0
        part.append(weight)
        size += own
    if part:
        yield part
