"""The moments that layers see of samples to fit to and of samples held out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from torch import nn

from muquant.compression.calibration.abreast import in_line, one_after_another
from muquant.compression.calibration.batches import Samples
from muquant.compression.calibration.collect import collect_moments
from muquant.compression.calibration.given import Calibration, read_samples
from muquant.compression.layers import Weight
from muquant.quantization.moments import InputMoments, Moments
from muquant.quantization.outcome import Outcome

W = TypeVar("W")
"""A weight, of a module or of a graph."""

MEMORY = 2**30
"""Bytes of moments at a time; a network that needs more is run several times."""


def split(calibration: Calibration) -> tuple[Samples, Samples]:
    """Return the samples to fit to, and those held out.

    Raises:
        InputError: as for `read_samples` and `Samples.split`.
    """
    return read_samples(calibration).split()


def samples_of(
    model: nn.Module,
    weights: Sequence[Weight],
    samples: tuple[Samples, Samples] | None,
    done: Mapping[Weight, Outcome] | None = None,
) -> Iterator[tuple[Weight, InputMoments | None, str]]:
    """Yield each of `weights` with what is known of its inputs, and else why that is not known.

    Args:
        model: in evaluation mode, on the CPU; it must not change while weights are yielded.
        weights: of `model`.
        samples: to fit to and held out, see `split`; None where nothing is known of any inputs.
        done: what became of weights that were yielded. Of the others those that a call multiplies by once are
            then told what the model with these shows them, and how far that is from what the float one does;
            they come last, in the order in which they are reached. None where the float model alone is to be
            looked at, which runs once for as many weights as fit in memory.

    Raises:
        InputError: the model does not run on the samples, or makes NaN or infinity of them.
    """
    ordered: list[Weight] = []
    if samples is not None and done is not None:
        ordered, fitting = in_line(model, weights, samples)
    rest = [weight for weight in weights if weight not in ordered]
    sizes = {weight: weight.channels.moments(tuple(weight.value.shape)) for weight in rest}

    def collect(part: list[Weight], own: Samples, total: int) -> dict[Weight, Moments | str]:
        return collect_moments(model, part, own, total=total)

    yield from in_parts(sizes, samples, collect)
    if ordered and done is not None:
        yield from one_after_another(model, ordered, fitting, done)


def in_parts(
    sizes: Mapping[W, int],
    samples: tuple[Samples, Samples] | None,
    collect: Callable[[list[W], Samples, int], dict[W, Moments | str]],
) -> Iterator[tuple[W, InputMoments | None, str]]:
    """Yield weights with what is known of their inputs, collected for a few weights at a time, and where
    nothing is known although there are samples, why.

    Args:
        sizes: weight -> numbers of its second moments.
        samples: to fit to and held out, see `split`; or None.
        collect: returns for each of some weights its moments on some samples, of so many in all, or why they
            cannot be known.
    """
    if samples is None:
        yield from ((weight, None, "") for weight in sizes)
        return
    total = sum(own.count for own in samples)
    for part in _parts(sizes):
        fit, held_out = (collect(part, own, total) for own in samples)
        for weight in part:
            one, other = fit.pop(weight), held_out.pop(weight)
            if isinstance(one, str) or isinstance(other, str):
                yield weight, None, one if isinstance(one, str) else str(other)
            else:
                yield weight, InputMoments.of(one, other), ""


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
