"""One weight, from float to codes: observe, round, and keep the best of what was tried."""

import math
from dataclasses import dataclass

from torch import Tensor

from muquant.calibration import Moments, Samples
from muquant.errors import InputError
from muquant.observers import observer_class
from muquant.rounding import ROUNDINGS, nearest, refinements
from muquant.spec import MAX_MU, MuLawSpec
from muquant.tensor import QuantizedTensor, to_matrix

OTHER_MUS = (0.5, 2.0)
"""Besides the mu that suits the weight itself, these multiples are tried on the layer's output."""


@dataclass(frozen=True)
class OutputQuality:
    """The signal-to-quantization-noise ratio of a layer's output on held-out samples, in dB.

    Attributes:
        nearest: with every weight at the level nearest to it; infinite where nothing is lost.
        taken: with the codes that were taken; at least as high.
    """

    nearest: float
    taken: float


@dataclass(frozen=True, eq=False)
class Quantized:
    """A quantized weight, and how it came about.

    Attributes:
        tensor: the weight.
        rounding: name of the method that was the best on held-out samples.
        output: what became of the layer's output; None where its inputs are not known.
    """

    tensor: QuantizedTensor
    rounding: str = "nearest"
    output: OutputQuality | None = None


def quantize(
    weight: Tensor,
    spec: MuLawSpec,
    channel_axis: int,
    observer: str,
    rounding: str,
    samples: Samples | None = None,
) -> Quantized:
    """Return `weight` (float32, any shape) in the format `spec`.

    All rounding methods up to `rounding` are tried, and the one whose outcome is best on held-out samples is
    taken: what lowers the error on the samples that it sees can raise it on others. Where the layer's inputs
    are not known, each weight goes to its nearest level.

    Args:
        weight: what to quantize; it is not changed.
        spec: the format; a mu of "auto" is chosen by the observer, and with samples by the layer's output.
        channel_axis: the weight's axis of output channels.
        observer: a name of `OBSERVERS`: how scale and mu are chosen.
        rounding: a name of `ROUNDINGS`.
        samples: what the layer's inputs are like.

    Raises:
        InputError: the weight holds NaN or infinity, or a name is unknown.
    """
    methods = refinements(rounding)
    start = _nearest(weight, spec, channel_axis, observer)
    if samples is None or not methods:
        output = None if samples is None else _quality(weight, start, start, samples.held_out)
        return Quantized(start, "nearest", output)
    starts = [start]
    if spec.mu == "auto":
        mus = [min(float(start.spec.mu) * factor, MAX_MU) for factor in OTHER_MUS]
        starts += [_nearest(weight, spec.with_mu(mu), channel_axis, observer) for mu in mus]
    outcomes = {"nearest": (_lost(weight, start, samples.held_out), start)}
    for name, refine in methods.items():
        tried = [refine(weight, each, samples.fit) for each in starts]
        outcomes[name] = min(
            ((_lost(weight, each, samples.held_out), each) for each in tried), key=lambda pair: pair[0]
        )
        starts = [outcomes[name][1]]
    taken = min(outcomes, key=lambda name: outcomes[name][0])
    best = outcomes[taken][1]
    return Quantized(best, taken, _quality(weight, start, best, samples.held_out))


def choose_rounding(name: str | None, *, calibrated: bool) -> str:
    """Return the rounding method that is meant: without a name the best that can be had.

    Raises:
        InputError: it is unknown, or needs a calibration that is not there.
    """
    if name is None:
        return list(ROUNDINGS)[-1 if calibrated else 0]
    if refinements(name) and not calibrated:
        raise InputError(
            f"rounding {name!r} looks at the outputs of layers, for which it needs samples; give a "
            f'calibration, or take rounding "nearest"'
        )
    return name


def finite(ratio: float) -> float | None:
    """Return a ratio as reports write it: None where nothing was lost."""
    return ratio if math.isfinite(ratio) else None


def _nearest(weight: Tensor, spec: MuLawSpec, channel_axis: int, observer: str) -> QuantizedTensor:
    watch = observer_class(observer)(spec, channel_axis)
    watch(weight)
    scale, mu = watch.calculate_qparams()
    return nearest(weight.detach(), scale, spec.with_mu(float(mu)), channel_axis)


def _lost(weight: Tensor, quantized: QuantizedTensor, moments: Moments) -> float:
    """E||(w - q) x||^2."""
    difference = quantized.dequantize().sub_(weight)
    return float(moments.power(to_matrix(difference, quantized.channel_axis)).double().sum())


def _quality(
    weight: Tensor, start: QuantizedTensor, taken: QuantizedTensor, moments: Moments
) -> OutputQuality:
    signal = float(moments.power(to_matrix(weight, start.channel_axis)).double().sum())

    def ratio(quantized: QuantizedTensor) -> float:
        lost = _lost(weight, quantized, moments)
        return 10 * math.log10(signal / lost) if lost > 0 and signal > 0 else math.inf

    return OutputQuality(ratio(start), ratio(taken))
