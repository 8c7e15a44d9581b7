"""BatchNorm re-estimation: the statistics that a compressed network's activations have, on a few samples."""

import copy
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from muquant.compression.calibration.batches import BATCH_SIZE, Samples, rows_of
from muquant.models.calls import Inputs, output_tensors
from muquant.quantization.quality import decibels


@dataclass(frozen=True)
class Reestimation:
    """What became of a network's BatchNorm statistics.

    Attributes:
        layers: how many there are.
        before: signal-to-quantization-noise ratio of the network's output on held-out samples in dB, with
            the statistics of training.
        after: likewise with re-estimated ones.
    """

    layers: int
    before: float
    after: float

    @property
    def taken(self) -> bool:
        """Whether the network has the new statistics: they are better."""
        return self.after > self.before


def batch_norms(model: nn.Module) -> dict[str, _BatchNorm]:
    """Return the BatchNorm layers with statistics of their own, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


@contextmanager
def mean_over_batches(model: nn.Module) -> Iterator[None]:
    """Let BatchNorm layers in training mode average their statistics over the batches that run inside.

    What they had before does not count; a layer that is not reached keeps it.
    """
    layers = batch_norms(model).values()
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        assert layer.num_batches_tracked is not None
        layer.num_batches_tracked.zero_()
        layer.momentum = None  # the mean over the batches
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


def reestimate_batch_norms(
    model: nn.Module, reference: nn.Module, fit: Samples, held_out: Samples
) -> Reestimation | None:
    """Move the BatchNorm statistics of `model` as compression moved its activations, if that helps.

    Sun et al., "Hybrid 8-bit Floating Point (HFP8) Training and Inference for Deep Neural Networks", NeurIPS
    2019, re-estimate them from samples. Here only the difference to what `reference` shows on the same
    samples is applied, mean + (m' - m) and variance * v' / v: what is special about so few of them cancels.

    Args:
        model: compressed, in evaluation mode, on the CPU; its statistics are changed in place.
        reference: the same network before, likewise.
        fit: samples to estimate from, 2 or more.
        held_out: samples to judge by.

    Returns:
        What became of it; None where there is nothing to do or nothing to judge by.
    """
    own = batch_norms(model)
    before = output_sqnr(model, reference, held_out) if own else None
    if before is None:
        return None
    try:
        expected, found = (_statistics(each, fit) for each in (reference, model))
    except ValueError:  # a batch of one sample with one value of a channel has no variance
        return None
    old = {name: _state(module) for name, module in own.items()}
    for name, module in own.items():
        (mean, variance), (new_mean, new_variance) = expected[name], found[name]
        running_mean, running_variance = old[name]
        ratio = torch.where(variance > 0, new_variance / variance, 1.0)
        _set(module, running_mean + new_mean - mean, running_variance * ratio)
    after = output_sqnr(model, reference, held_out)
    assert after is not None
    result = Reestimation(len(own), before, after)
    if not result.taken:
        for name, module in own.items():
            _set(module, *old[name])
    return result


def output_sqnr(model: nn.Module, reference: nn.Module, samples: Samples) -> float | None:
    """Return the ratio of the outputs of `reference` to what `model` makes different, in dB; over all
    floating-point tensors of their results, None where there is none."""
    signal = noise = 0.0
    seen = False
    with torch.no_grad():
        for batch in _batches(samples):
            for exact, other in zip(
                *(_tensors(batch.call(each)) for each in (reference, model)), strict=True
            ):
                seen = True
                known = exact.masked_fill(exact.isinf(), 0)  # a masked logit is minus infinity, and stays it
                signal += float(known.double().square().sum())
                noise += float(torch.where(other == exact, 0, other - exact).double().square().sum())
    if not seen:
        return None
    return decibels(signal, noise)


def _tensors(result: Any) -> list[Tensor]:
    return [tensor for _, tensor in output_tensors(result) if tensor.is_floating_point()]


def _statistics(model: nn.Module, samples: Samples) -> dict[str, tuple[Tensor, Tensor]]:
    """Means and variances of what BatchNorm layers are given, each normalizing by those of its batch.

    The model is as before afterwards.
    """
    layers = batch_norms(model)
    old = {name: copy.deepcopy(module.state_dict()) for name, module in layers.items()}
    for module in layers.values():
        module.train()
    try:
        with torch.no_grad(), mean_over_batches(model):
            for batch in _batches(samples):
                batch.call(model)
        return {name: _state(module) for name, module in layers.items()}
    finally:
        for name, module in layers.items():
            module.load_state_dict(old[name])
            module.eval()


def _batches(samples: Samples) -> Iterator[Inputs]:
    """Parts of about the same size, so that none is of one sample alone if that can be."""
    for group in samples.joined():
        parts = math.ceil(rows_of(group) / BATCH_SIZE)
        if parts == 1:
            yield group
            continue
        bounds = [group.count * part // parts for part in range(parts + 1)]
        yield from (group.rows(*pair) for pair in pairwise(bounds))


def _state(module: _BatchNorm) -> tuple[Tensor, Tensor]:
    assert module.running_mean is not None
    assert module.running_var is not None
    return module.running_mean.clone(), module.running_var.clone()


def _set(module: _BatchNorm, mean: Tensor, variance: Tensor) -> None:
    assert module.running_mean is not None
    assert module.running_var is not None
    module.running_mean.copy_(mean)
    module.running_var.copy_(variance)
