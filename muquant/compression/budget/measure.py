"""What the weights of a network cost and lose at each width, and what that does to its answers."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from muquant.base.errors import naming
from muquant.compression.answers.modules import ask_to_probe, run_module
from muquant.compression.answers.report import SYNTHETIC
from muquant.compression.budget.curve import WidthCurve, coded, measure
from muquant.compression.budget.gradients import Distortions, Errors, Gradients, OnRun, by_gradients
from muquant.compression.budget.probe import MOST_JUDGED, PROBED, TRUST, Probe, probed, probed_samples
from muquant.compression.layers import Weight
from muquant.compression.options import CompressionOptions
from muquant.format.channels import Channels
from muquant.format.tensor import QuantizedTensor
from muquant.models.calls import Example
from muquant.quantization.rounding import BLIND

OnStep = Callable[[str, int, int], None]
"""(what is done next, its place, their number), for progress."""


class Measured(NamedTuple):
    """A weight to measure.

    Attributes:
        name: of it.
        read: returns its values, float32, any shape.
        channels: which of its numbers are one output channel.
        pinned: the width that was asked for, or None.
    """

    name: str
    read: Callable[[], Tensor]
    channels: Channels
    pinned: int | None


@dataclass(frozen=True, eq=False)
class Measurement:
    """What weights cost and lose at each width, and what that does to the answers of the network.

    Attributes:
        weights: them.
        curves: measured on weights alone.
        mus: mu of each.
        options: of the compression.
        probe: what the answers of the network do; None where it cannot be run.
        distortions: for each weight width -> that of the answers; empty without `probe`.
        made_up: whether the probe runs on inputs that were made up.
    """

    weights: Sequence[Measured]
    curves: Sequence[WidthCurve]
    mus: Sequence[float]
    options: CompressionOptions
    probe: Probe | None
    distortions: Sequence[Mapping[int, float]]
    made_up: bool = False

    def trusted(self, trust: float = TRUST) -> list[WidthCurve]:
        """Return curves measured on the answers, as far as they are to be trusted; see `probed`."""
        return list(self.curves) if self.probe is None else probed(self.curves, self.distortions, trust)

    def distortion(self, widths: Mapping[str, int]) -> float:
        """Return that of the answers with all weights at these widths at once; there has to be a probe."""
        assert self.probe is not None
        return self.probe(
            {
                weight.name: _coded(weight, self.options, widths[weight.name], mu).dequantize()
                for weight, mu in zip(self.weights, self.mus, strict=True)
            },
            MOST_JUDGED,
        )


def measure_all(
    weights: Sequence[Measured],
    options: CompressionOptions,
    probe: Probe | None,
    gradients: Gradients | None = None,
    on_step: OnStep | None = None,
) -> Measurement:
    """Measure weights, one at a time in memory but for their errors.

    Args:
        weights: them.
        options: of the compression.
        probe: what the answers of the network do; None where it cannot be run.
        gradients: the same of many weights at once; None where they cannot be had. Weights that it leaves out
            are shown to the network one after another.
        on_step: called before each weight.
    """
    curves, mus = [], []
    errors: dict[str, dict[int, Tensor]] = {}
    for place, weight in enumerate(weights):
        if on_step is not None:
            on_step(f"measuring {weight.name}", place, len(weights))
        with naming(weight.name):
            value = weight.read()
            curve, mu = measure(
                weight.name, value, options.format, weight.channels, options.observer, weight.pinned
            )
            curves.append(curve)
            mus.append(mu)
            if probe is not None and gradients is not None and weight.pinned is None:
                errors[weight.name] = {
                    bits: (_coded(weight, options, bits, mu).dequantize() - value).to(torch.bfloat16)
                    for bits in PROBED
                }
    distortions = dict(gradients(errors)) if gradients is not None and errors else {}
    if probe is not None:
        unknown = [
            (weight, mu)
            for weight, mu in zip(weights, mus, strict=True)
            if weight.pinned is None and weight.name not in distortions
        ]
        most = probed_samples(len(unknown))
        for place, (weight, mu) in enumerate(unknown):
            if on_step is not None:
                on_step(f"measuring {weight.name}", place, len(unknown))
            tried = {bits: _coded(weight, options, bits, mu).dequantize() for bits in PROBED}
            distortions[weight.name] = {bits: probe({weight.name: own}, most) for bits, own in tried.items()}
    known = [distortions.get(weight.name, {}) for weight in weights]
    return Measurement(weights, curves, mus, options, probe, known)


def _coded(weight: Measured, options: CompressionOptions, bits: int, mu: float) -> QuantizedTensor:
    rounding = BLIND if options.method == BLIND else "nearest"
    return coded(weight.read(), options.format, bits, mu, weight.channels, options.observer, rounding)


def runs_of(on_step: OnStep | None) -> OnRun | None:
    """Return what tells of runs for gradients."""
    return None if on_step is None else partial(on_step, "gradients")


def measure_module(
    module: nn.Module,
    weights: Mapping[Weight, int | None],
    options: CompressionOptions,
    example: Example | None,
    on_step: OnStep | None = None,
) -> Measurement:
    """Measure weights of a module, which is run on a few of the samples to fit to, or of the
    example where there are none.

    Args:
        module: in evaluation mode, on the CPU; its weights are others while it runs.
        weights: -> the width that was asked for.
        options: of its compression.
        example: its inputs [N, ...] each, or None.
        on_step: called before each weight.
    """
    exact = ask_to_probe(module, options, example, MOST_JUDGED, probed_samples(len(weights)))
    by_name = {weight.name: weight for weight in weights}

    def probe(values: Mapping[str, Tensor], most: int) -> float:
        before = {name: by_name[name].value.detach() for name in values}
        try:
            for name, value in values.items():
                by_name[name].value.data = value.reshape(before[name].shape)
            return exact.distortion(lambda batch: run_module(module, batch), most)
        finally:
            for name, value in before.items():
                by_name[name].value.data = value

    given = [
        Measured(weight.name, partial(_value, weight), weight.channels, pinned)
        for weight, pinned in weights.items()
    ]
    unknown = exact.not_checked

    def gradients(errors: Errors) -> Distortions:
        own = {name: by_name[name].value for name in errors}
        try:
            alone = [one for batch, _, _ in exact.batches for one in batch.batches(1)]
            runs = [partial(run_module, module, one, gradients=True) for one in alone]
            return by_gradients(own, errors, runs, runs_of(on_step))
        except Exception:  # whatever the module raises on one sample, or with gradients
            return {}

    measured = measure_all(
        given, options, None if unknown else probe, None if unknown else gradients, on_step
    )
    return replace(measured, made_up=exact.inputs == SYNTHETIC)


def _value(weight: Weight) -> Tensor:
    return weight.value.detach()
