"""A plan for the weights of a PyTorch module."""

import copy
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import Tensor, nn

from muquant.base.errors import InputError, naming
from muquant.compression.budget.answers import answers, count_changed
from muquant.compression.budget.choose import OnStep, choose
from muquant.compression.budget.curve import WidthCurve, measure
from muquant.compression.budget.limits import Limits
from muquant.compression.budget.plan import Drop, Plan
from muquant.compression.calibration import samples_of, split
from muquant.compression.calibration.collect import BATCH_SIZE, run_samples
from muquant.compression.layers import override_formats, select_weights
from muquant.compression.pipeline import compress
from muquant.compression.qat import unwrap
from muquant.format.spec import MuLawSpec
from muquant.models.calls import Example, Inputs, output_tensors
from muquant.quantization.observers import observer_class
from muquant.quantization.quantize import choose_rounding
from muquant.quantization.resume import Finished


def plan_widths(
    model: nn.Module,
    spec: MuLawSpec | None = None,
    *,
    max_bytes: int | None = None,
    max_drop: float | None = None,
    layers: str = "all",
    overrides: Mapping[str, int] | None = None,
    rounding: str | None = None,
    observer: str = "search",
    calibration: Example | None = None,
    corrections: bool = True,
    finished: Finished | None = None,
    on_step: OnStep | None = None,
) -> Plan:
    """Choose the width of each weight of `model`, 2 to 8 bits, by how much its noise matters.

    `compress(model, spec, layers=plan.layers, overrides=plan.overrides, ...)` then follows the plan. The
    noise of a weight is the ratio of noise to signal of its layer's output on held-out samples, with every
    weight at its nearest level; without samples that of the weight itself. The plan makes the sum of these
    ratios small, which by Lin, Talathi, Annapureddy, "Fixed Point Quantization of Deep Convolutional
    Networks", ICML 2016, is that of the network's output: a rough guide, which `max_drop` does not rely on.

    Args:
        model: any module, not prepared by `prepare_qat`; it is not changed.
        spec: the format but for its width.
        max_bytes: most bytes of packed codes and steps, all weights together. What stays float is not
            counted, nor is the rest of a file.
        max_drop: most held-out answers, in percentage points, that may differ from the float model's: the
            accuracy on these samples falls by no more, whatever their labels. Plans are compressed, run and
            compared, and the smallest one that keeps within it is taken. A quarter of the samples is held
            out; the answer is the class with the largest value, see `answers`.
        layers: which to compress: "all", "last:K" or a regular expression, as in `compress`.
        overrides: layers -> a width that is theirs, as in `compress`.
        rounding: as in `compress`, for the plans that are tried.
        observer: as in `compress`.
        calibration: a few samples [N, ...], 4 or more, as in `compress`; needed with `max_drop`.
        corrections: as in `compress`, for the plans that are tried.
        finished: as in `compress`, for the plans that are tried; the plan that is taken is among them.
        on_step: called before each weight that is measured and each plan that is tried, with what it is, its
            place and their number, for progress.

    Raises:
        InputError: no limit is given, no plan keeps within the limits, the model was prepared for
            quantization-aware training, or whatever `compress` refuses.
    """
    limits, spec = Limits(max_bytes, max_drop), spec or MuLawSpec()
    limits.check(spec, layers, overrides, calibrated=calibration is not None)
    observer_class(observer)
    method = choose_rounding(rounding, calibrated=calibration is not None)
    module = copy.deepcopy(model).cpu().float().eval()
    if unwrap(module):
        raise InputError(
            "the model was prepared for quantization-aware training, which fixed its widths; plan for a "
            "float model, or compress it without a plan"
        )
    picked = select_weights(module, layers)
    pinned = override_formats(picked, spec, overrides or {})
    weights = {id(weight.value): weight for weight in reversed(picked)}  # the first of those that share one
    named = {weight.name: weight for weight in reversed(weights.values())}
    curves: list[WidthCurve] = []
    for name, samples in samples_of(module, named, calibration):
        if on_step is not None:
            on_step(f"measuring {name}", len(curves), len(named))
        value, axis = named[name].value, named[name].channel_axis
        own = pinned.get(id(value))
        with naming(name):
            asked = None if own is None else own.bits
            curves.append(measure(name, value.detach(), spec, axis, observer, samples, asked))

    def compressed(plan: Plan) -> nn.Module:
        return compress(
            model,
            spec,
            layers=layers,
            overrides=plan.overrides,
            rounding=method,
            observer=observer,
            calibration=calibration,
            corrections=corrections,
            finished=finished,
        ).module

    trial = None if max_drop is None else _trial(module, compressed, calibration)
    return choose(curves, limits, layers, trial, on_step)


def _trial(
    module: nn.Module, compressed: Callable[[Plan], nn.Module], calibration: Example | None
) -> Callable[[Plan], Drop]:
    """Return what compares the answers of a compressed model with those of `module`."""
    _, held_out = split(calibration)  # type: ignore[arg-type]  # with a drop there are samples
    exact = list(_answers(module, held_out))
    return lambda plan: count_changed(exact, _answers(compressed(plan), held_out))


def _answers(module: nn.Module, inputs: Inputs) -> Iterator[Tensor]:
    """Yield the answers to the samples, `BATCH_SIZE` at a time."""
    for batch in inputs.batches(BATCH_SIZE):
        with torch.inference_mode():
            tensors = output_tensors(run_samples(module, batch))
        if not tensors:
            raise InputError(f"max_drop: {type(module).__name__} returns no tensor; give max_bytes instead")
        yield answers(tensors[0][1])
