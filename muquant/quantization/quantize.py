"""One weight, from float to codes: observe, round, and keep the best of what was tried."""

import math
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from muquant.base.errors import InputError
from muquant.format.channels import ROWS, Channels
from muquant.format.rows import from_matrix, to_matrix
from muquant.format.spec import MAX_MU, MuLawSpec
from muquant.format.tensor import QuantizedTensor
from muquant.quantization.moments import InputMoments, Moments, unit_of
from muquant.quantization.observers import observer_class
from muquant.quantization.outcome import Outcome, OutputQuality
from muquant.quantization.output_error import OutputError, mean_error, moved
from muquant.quantization.quality import decibels
from muquant.quantization.resume import FinishedWeights
from muquant.quantization.rounding import BLIND, ROUNDINGS, balanced, compensated, nearest, refinements
from muquant.quantization.threads import one_thread

MUS = (0.5, 0.7, 1.0, 1.4, 2.0)
"""Multiples of the mu that suits the weight itself that are tried on the layer's output."""
MANY = 2**23
"""Of so many weights the operators are long enough for more than one thread."""
ROWS_FOR_MU = 128
"""Of so many rows."""


def quantize(
    weight: Tensor,
    spec: MuLawSpec,
    channels: Channels,
    observer: str,
    rounding: str,
    samples: InputMoments | None = None,
    *,
    biased: bool = False,
    finished: FinishedWeights | None = None,
) -> Outcome:
    """Return `weight` (float32, any shape) in the format `spec`.

    All rounding methods up to `rounding` are tried, and the one whose outcome is best on held-out samples is
    taken: what lowers the error on the samples that it sees can raise it on others. Where the layer's inputs
    are not known, it is the last one that needs no samples.

    Where the layer has a bias, that makes up for the mean of the error (bias correction: Nagel et al.,
    "Data-Free Quantization Through Weight Equalization and Bias Correction", ICCV 2019). Codes are then
    chosen by what is left, the variance of the error: the mean costs them nothing.

    Args:
        weight: what to quantize; it is not changed.
        spec: the format; a mu of "auto" is chosen by the observer, and with samples by the layer's output.
        channels: which of its weights are one output channel.
        observer: a name of `OBSERVERS`: how scale and mu are chosen.
        rounding: a name of `ROUNDINGS`.
        samples: what the layer's inputs are like.
        biased: whether the layer has a bias, one for each channel, that may be changed.
        finished: where the outcome is kept, and taken from where it is there already.

    Raises:
        InputError: the weight holds NaN or infinity, or a name is unknown.
    """
    in_unit = partial(
        _quantize,
        spec=spec,
        channels=channels,
        observer=observer,
        rounding=rounding,
        samples=samples,
        biased=biased,
    )
    if finished is None:
        return _in_range(weight, in_unit)
    key = finished.key(
        weight,
        samples,
        spec=spec.to_dict(),
        **channels.to_entry(),
        observer=observer,
        rounding=rounding,
        biased=biased,
    )
    outcome = finished.get(key, weight, spec, channels)
    if outcome is None:
        outcome = _in_range(weight, in_unit)
        finished.put(key, outcome)
    return outcome


def _in_range(weight: Tensor, in_unit: Callable[[Tensor], Outcome]) -> Outcome:
    """Quantize by `in_unit`, in another unit where the squares of weights are no numbers of float32."""
    largest = float(torch.stack(torch.aminmax(weight)).abs().max()) if weight.numel() else 0.0
    unit = unit_of(largest) if math.isfinite(largest) else 1.0
    with one_thread(alone=weight.numel() < MANY):
        found = in_unit(weight if unit == 1 else weight * (1 / unit))
    if unit == 1:
        return found
    tensor = replace(found.tensor, step=found.tensor.step * unit)
    return replace(found, tensor=tensor, shift=None if found.shift is None else found.shift * unit)


def _quantize(
    weight: Tensor,
    spec: MuLawSpec,
    channels: Channels,
    observer: str,
    rounding: str,
    samples: InputMoments | None,
    biased: bool,
) -> Outcome:
    methods = refinements(rounding)
    start = _nearest(weight, spec, channels, observer)
    outcomes = [Outcome(start)]
    if rounding != "nearest" and spec.domain == "decoded":
        outcomes.append(Outcome(balanced(weight, start), BLIND))
    if samples is None:
        return outcomes[-1]
    fit, held_out = samples.fit, samples.held_out
    rows = fit.blocks(to_matrix(weight, channels))
    judge = OutputError(rows, held_out)
    biased = biased and spec.domain == "decoded"  # a mapped weight is not close to the weight
    if methods:
        seen = fit.about(fit.mean) if biased else fit
        wanted = moved(rows, seen, fit if biased else None, judge) if spec.domain == "decoded" else rows
        aim = from_matrix(wanted.reshape(-1, rows.shape[2]), tuple(weight.shape), channels)
        if spec.mu == "auto":
            spec = spec.with_mu(_best_mu(start.spec, observer, rows, wanted, seen, samples, biased=biased))
        start = _nearest(aim, spec, channels, observer)
        for name, refine in methods.items():
            start = refine(aim, start, seen)
            outcomes.append(Outcome(start, name))
    errors = [rows - fit.blocks(to_matrix(each.tensor.dequantize(), channels)) for each in outcomes]
    losses = [judge.of(error) for error in errors]
    nearest_loss = losses[0]
    if biased:
        means = [mean_error(rows, error, fit) for error in errors]
        losses += [judge.of(*each) for each in zip(errors, means, strict=True)]
        outcomes += [
            replace(each, shift=mean.reshape(-1) * fit.unit)
            for each, mean in zip(outcomes, means, strict=True)
        ]
    best = losses.index(min(losses))
    quality = OutputQuality(*(decibels(judge.signal, lost) for lost in (nearest_loss, losses[best])))
    return replace(outcomes[best], output=quality)


def _best_mu(
    spec: MuLawSpec,
    observer: str,
    rows: Tensor,
    wanted: Tensor,
    seen: Moments,
    samples: InputMoments,
    *,
    biased: bool,
) -> float:
    """Return the mu of `spec`, or another that is better for the layer's output: of some rows, compensated,
    on held-out samples."""
    every = math.ceil(rows.shape[0] * rows.shape[1] / ROWS_FOR_MU)
    rows, part = rows[:, ::every], wanted[:, ::every].reshape(-1, rows.shape[2])
    judge = OutputError(rows, samples.held_out)
    losses: dict[float, float] = {}
    for factor in MUS:
        mu = min(float(spec.mu) * factor, MAX_MU)
        tried = compensated(part, _nearest(part, spec.with_mu(mu), ROWS, observer), seen)
        error = rows - tried.dequantize().reshape(rows.shape)
        losses.setdefault(mu, judge.of(error, mean_error(rows, error, samples.fit) if biased else None))
    return min(losses, key=losses.__getitem__)


def choose_rounding(name: str | None, *, calibrated: bool) -> str:
    """Return the rounding method that is meant: without a name the best that can be had.

    Raises:
        InputError: it is unknown, or needs a calibration that is not there.
    """
    if name is None:
        return list(ROUNDINGS)[-1] if calibrated else BLIND
    if refinements(name) and not calibrated:
        raise InputError(
            f"rounding {name!r} looks at the outputs of layers, for which it needs samples; give a "
            f'calibration, or take rounding "{BLIND}"'
        )
    return name


def _nearest(weight: Tensor, spec: MuLawSpec, channels: Channels, observer: str) -> QuantizedTensor:
    watch = observer_class(observer)(spec, channels)
    watch(weight)
    scale, mu = watch.calculate_qparams()
    return nearest(weight.detach(), scale, spec.with_mu(float(mu)), channels)
