"""A plan for the weights of a PyTorch module."""

from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import nn

from muquant.base.errors import InputError
from muquant.compression.budget.answers import Answers, answers, count_changed
from muquant.compression.budget.choose import TryPlan, choose
from muquant.compression.budget.limits import Limits
from muquant.compression.budget.measure import OnStep, measure_module
from muquant.compression.budget.plan import Drop, Plan
from muquant.compression.calibration import Calibration, Samples
from muquant.compression.calibration.batches import BATCH_SIZE
from muquant.compression.calibration.collect import run_samples
from muquant.compression.calibration.uses import find_uses
from muquant.compression.computed import frozen_copy
from muquant.compression.layers import override_formats, select_weights
from muquant.compression.options import CompressionOptions
from muquant.compression.pipeline import compress_module
from muquant.compression.selection import Layers
from muquant.format.spec import MuLawSpec
from muquant.models.calls import Example, output_tensors
from muquant.quantization.resume import FinishedWeights


def plan_widths(
    model: nn.Module,
    spec: MuLawSpec | None = None,
    *,
    max_bytes: int | None = None,
    max_drop: float | None = None,
    layers: Layers = "all",
    overrides: Mapping[str, int] | None = None,
    rounding: str | None = None,
    max_seconds: float | None = None,
    observer: str = "search",
    calibration: Calibration | None = None,
    corrections: bool = True,
    example: Example | None = None,
    finished: FinishedWeights | None = None,
    on_step: OnStep | None = None,
) -> Plan:
    """Choose the width of each weight of `model`, 2 to 8 bits, by how much its noise matters.

    `compress(model, spec, layers=plan.layers, overrides=plan.overrides, ...)` then follows the plan. The
    noise of a weight is what its error does to the answers of the network, run on a few samples or on the
    example; where it cannot be run, the error's power over the weight's. The plan makes the sum of these
    small, see `probed`: a guide, which `max_drop` does not rely on.

    Args:
        model: any module, not prepared by `prepare_qat`; it is not changed.
        spec: the format but for its width.
        max_bytes: most bytes of packed codes and steps, all weights together. What stays float is not
            counted, nor is the rest of a file.
        max_drop: most held-out answers, in percentage points, that may differ from the float model's: the
            accuracy on these samples falls by no more, whatever their labels. Plans are compressed, run and
            compared, and the smallest one that keeps within it is taken. A quarter of the samples is held
            out; the answer is the class with the largest value, and the share is the one to be expected by
            the margins of all answers, see `count_changed`.
        layers: which to compress: "all", "last:K" or a regular expression, as in `compress`.
        overrides: layers -> a width that is theirs, as in `compress`.
        rounding: as in `compress`, for the plans that are tried, which are not tuned.
        max_seconds: as in `compress`; nothing is tuned here.
        observer: as in `compress`.
        calibration: a few samples, as in `compress`; needed with `max_drop`.
        corrections: as in `compress`, for the plans that are tried.
        example: as in `compress`: shows which parameters of modules that are not known are weights.
        finished: as in `compress`, for the plans that are tried; the plan that is taken is among them.
        on_step: called before each weight that is measured and each plan that is tried, with what it is, its
            place and their number, for progress.

    Raises:
        InputError: no limit is given, no plan keeps within the limits, the model was prepared for
            quantization-aware training, or whatever `compress` refuses.
    """
    options = CompressionOptions(
        spec=spec,
        layers=layers,
        overrides=overrides or {},
        rounding=rounding,
        max_seconds=max_seconds,
        observer=observer,
        calibration=calibration,
        corrections=corrections,
        finished=finished,
    )
    return plan_module(model, Limits(max_bytes, max_drop), options, on_step, example)


@torch.inference_mode(False)
@torch.enable_grad()
def plan_module(
    model: nn.Module,
    limits: Limits,
    options: CompressionOptions,
    on_step: OnStep | None = None,
    example: Example | None = None,
) -> Plan:
    """`plan_widths`, with its options as objects."""
    limits.check(options)
    module, trained = frozen_copy(model)
    if trained:
        raise InputError(
            "the model was prepared for quantization-aware training, which fixed its widths; plan for a "
            "float model, or compress it without a plan"
        )
    options = options.taken_by_module(module).untuned
    if example is None and options.samples is not None:
        example = options.samples[0].first.example
    uses = None if example is None else find_uses(module, example)
    picked = select_weights(module, options.layers, uses)
    pinned = override_formats(picked, options.format, options.overrides)
    widths = {weight: pinned[weight].bits if weight in pinned else None for weight in picked}
    curves = measure_module(module, widths, options, example, on_step).trusted()
    trial = None if limits.max_drop is None else _trial(model, module, options, example)
    return choose(curves, limits, options.layers, trial, on_step)


def _trial(
    model: nn.Module, module: nn.Module, options: CompressionOptions, shown: Example | None
) -> TryPlan:
    """Return what compares the answers of a compressed model with those of `module`.

    Args:
        model: as it was given.
        module: the same, in evaluation mode on the CPU.
        options: but for the widths; with samples.
        shown: what was run to find weights.
    """
    assert options.samples is not None
    _, held_out = options.samples
    exact = list(_answers(module, held_out))

    def trial(plan: Plan) -> Drop:
        compressed = compress_module(model, replace(options, overrides=plan.overrides), shown=shown)
        return count_changed(exact, _answers(compressed.module, held_out))

    return trial


def _answers(module: nn.Module, samples: Samples) -> Iterator[Answers]:
    """Yield the answers to the samples, `BATCH_SIZE` at a time."""
    for batch in samples.batches(BATCH_SIZE):
        with torch.inference_mode():
            tensors = output_tensors(run_samples(module, batch))
        if not tensors:
            raise InputError(f"max_drop: {type(module).__name__} returns no tensor; give max_bytes instead")
        yield answers(tensors[0][1])
