"""What the weights of a network cost and lose at each width, and what that does to its answers."""

from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from torch import Tensor, nn

from muquant.base.errors import naming
from muquant.compression.answers.modules import ask_to_probe, run_module
from muquant.compression.budget.curve import WidthCurve, measure
from muquant.compression.budget.probe import Probe, probed, probed_samples
from muquant.compression.layers import Weight
from muquant.compression.options import CompressionOptions
from muquant.format.channels import Channels
from muquant.models.calls import Example

OnStep = Callable[[str, int, int], None]
"""(what is done next, its place, their number), for progress."""


class Measured(NamedTuple):
    """A weight to measure.

    Attributes:
        name: of it.
        value: float32, any shape.
        channels: which of its numbers are one output channel.
        pinned: the width that was asked for, or None.
    """

    name: str
    value: Tensor
    channels: Channels
    pinned: int | None


def measure_all(
    weights: Iterable[Measured],
    count: int,
    options: CompressionOptions,
    probe: Probe | None,
    on_step: OnStep | None = None,
) -> list[WidthCurve]:
    """Return the curves of `count` weights.

    Args:
        weights: them, one at a time in memory.
        count: how many they are.
        options: of the compression.
        probe: what the answers of the network do; None where it cannot be run.
        on_step: called before each weight.
    """
    curves, distortions = [], []
    for place, (name, value, channels, pinned) in enumerate(weights):
        if on_step is not None:
            on_step(f"measuring {name}", place, count)
        with naming(name):
            curve, coded = measure(name, value, options.format, channels, options.observer, pinned)
        curves.append(curve)
        if probe is not None:
            distortions.append(probe(name, coded.dequantize()))
    return curves if probe is None else probed(curves, distortions)


def measure_module(
    module: nn.Module,
    weights: Mapping[Weight, int | None],
    options: CompressionOptions,
    example: Example | None,
    on_step: OnStep | None = None,
) -> list[WidthCurve]:
    """Return the curves of weights of a module, which is run on a few of the samples to fit to, or of the
    example where there are none.

    Args:
        module: in evaluation mode, on the CPU; its weights are others while it runs.
        weights: -> the width that was asked for.
        options: of its compression.
        example: its inputs [N, ...] each, or None.
        on_step: called before each weight.
    """
    exact = ask_to_probe(module, options, example, probed_samples(len(weights)))
    by_name = {weight.name: weight for weight in weights}

    def probe(name: str, value: Tensor) -> float:
        weight = by_name[name]
        before = weight.value.detach()
        weight.value.data = value.reshape(before.shape)
        try:
            return exact.distortion(lambda batch: run_module(module, batch))
        finally:
            weight.value.data = before

    given = (
        Measured(weight.name, weight.value.detach(), weight.channels, pinned)
        for weight, pinned in weights.items()
    )
    return measure_all(given, len(weights), options, None if exact.not_checked else probe, on_step)
