"""Calibration samples: some to fit codes to, others to judge by, and the moments that layers see of both."""

from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

from muquant.base.errors import InputError
from muquant.compression.calibration.collect import collect_moments
from muquant.compression.layers import Weight
from muquant.format.rows import to_matrix
from muquant.models.calls import Example, Inputs
from muquant.quantization.moments import Moments, Samples

HELD_OUT = 4
"""Every so many-th sample is held out."""
MEMORY = 2**30
"""Bytes of moments at a time; a network that needs more is run several times."""


def split(calibration: Example) -> tuple[Inputs, Inputs]:
    """Return the samples [N, ...] to fit to, and those held out.

    Raises:
        InputError: there are fewer than 4, their tensors disagree in number, or one holds NaN or infinity.
    """
    inputs = Inputs.of(calibration)
    count = inputs.count
    if count < HELD_OUT:
        raise InputError(f"calibration: expected at least {HELD_OUT} samples, found {count}; give more")
    for name, tensor in zip(inputs.names or range(len(inputs.tensors)), inputs.tensors, strict=True):
        finite = tensor.isfinite()
        if not finite.all():
            first = int((~finite).nonzero()[0, 0])
            raise InputError(
                f"calibration: input {name}: expected finite numbers, found NaN or infinity in sample "
                f"{first}; mend it or leave it out (in a mask the lowest finite number does for -inf)"
            )
    held_out = torch.arange(count) % HELD_OUT == HELD_OUT - 1
    return inputs.map(lambda tensor: tensor[~held_out]), inputs.map(lambda tensor: tensor[held_out])


def samples_of(
    model: nn.Module,
    weights: Mapping[str, Weight],
    calibration: Example | None,
    on_batch: Callable[[int, int], None] | None = None,
) -> Iterator[tuple[str, Samples | None]]:
    """Yield each of `weights` with what is known of its inputs, or None where they cannot be known.

    The model is run once for as many weights as fit in memory.

    Args:
        model: in evaluation mode, on the CPU; it must not change while weights are yielded.
        weights: names -> weights of `model`, each with a tensor of its own.
        calibration: samples [N, ...]; None where nothing is known of any weight's inputs.
        on_batch: called as in `collect_moments`.

    Raises:
        InputError: the model does not run on the samples, there are too few, one holds NaN or infinity, or
            the model makes such numbers or too large ones of them.
    """
    inputs = {name: to_matrix(weight.value, weight.channel_axis).shape[1] for name, weight in weights.items()}

    def collect(names: list[str], part: Inputs) -> dict[str, Moments]:
        return collect_moments(model, {name: weights[name] for name in names}, part, on_batch=on_batch)

    yield from in_parts(inputs, calibration, collect)


def in_parts(
    inputs: Mapping[str, int],
    calibration: Example | None,
    collect: Callable[[list[str], Inputs], dict[str, Moments]],
) -> Iterator[tuple[str, Samples | None]]:
    """Yield the names of weights with what is known of their inputs, collected for a few weights at a time.

    Args:
        inputs: name of a weight -> inputs of each of its channels.
        calibration: samples [N, ...], or None.
        collect: returns moments for those of some weights for which they can be known.
    """
    if calibration is None:
        yield from ((name, None) for name in inputs)
        return
    fit, held_out = split(calibration)
    for part in _parts(inputs):
        one, other = collect(part, fit), collect(part, held_out)
        for name in part:
            known = name in one and name in other
            yield name, Samples(one.pop(name), other.pop(name)) if known else None


def _parts(inputs: Mapping[str, int]) -> Iterator[list[str]]:
    part: list[str] = []
    size = 0
    for name, count in inputs.items():
        own = 2 * 4 * count**2
        if part and size + own > MEMORY:
            yield part
            part, size = [], 0
        part.append(name)
        size += own
    if part:
        yield part
