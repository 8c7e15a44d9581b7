"""The pipeline: select layers, observe, round, and keep the result as one `CompressedModel`."""

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import torch
from torch import nn

from muquant.base.errors import InputError, naming
from muquant.base.files import temporary_folder
from muquant.compression.answers.compare import FloatAnswers
from muquant.compression.answers.modules import ask_held_out, ask_module, check_module, run_module
from muquant.compression.artifact import CompressedModel
from muquant.compression.auto import CRITERION, Choice
from muquant.compression.budget.measure import OnStep, measure_module
from muquant.compression.budget.probe import MOST_JUDGED
from muquant.compression.budget.spread import spread
from muquant.compression.calibration import Calibration, samples_of
from muquant.compression.calibration.uses import find_uses
from muquant.compression.computed import Trained, frozen_copy
from muquant.compression.layers import (
    Uses,
    Weight,
    override_formats,
    select_weights,
    trained_weights,
)
from muquant.compression.left import left_float
from muquant.compression.options import TUNED, CompressionOptions
from muquant.compression.quantizer import Compressed, Quantizer, put_in_place
from muquant.compression.selection import Layers, Override
from muquant.compression.sensitivity import input_shapes
from muquant.compression.tuning import TuningReport, batches_of, subject_of, tune
from muquant.format.spec import MuLawSpec
from muquant.models.calls import Example, Inputs
from muquant.quantization.outcome import Outcome
from muquant.quantization.resume import FinishedWeights

HeldOut = Callable[[], FloatAnswers[Inputs]]
"""Asks the float module what it answers to held-out samples."""

_NO_FORMAT = f"no format met ||dW||_2 <= {CRITERION:g}"


def compress(
    model: nn.Module,
    spec: MuLawSpec | None = None,
    *,
    flat: bool = False,
    layers: Layers = "all",
    overrides: Mapping[str, Override] | None = None,
    rounding: str | None = None,
    max_seconds: float | None = None,
    observer: str = "search",
    calibration: Calibration | None = None,
    synthetic: bool = True,
    corrections: bool = True,
    example: Example | None = None,
    finished: FinishedWeights | None = None,
    check: bool = True,
    on_layer: Callable[[str, int, int], None] | None = None,
) -> CompressedModel:
    """Compress the weights of `model`; biases, norms, other kinds of layers and those not picked stay
    float32: `left_alone` of the result lists them. The model is not changed.

    Args:
        model: any module; weights of other precisions become float32, and so does what it is given of such,
            if it takes no other. Wrappers around it or its parts, such as torch.compile's, are left out of
            the result. Where it was prepared by `prepare_qat`, its fake-quantized weights are frozen as
            trained, and `spec`, `layers`, `overrides`, `rounding`, `observer`, `calibration` must stay unset.
        spec: the format; 3 bits, mu searched, a scale for each channel by default. Its width is the average
            over the weights that no override picks: each has 2 to 8 bits, by what its error does to the
            answers of the model on `calibration` or `example`; without either by its error alone. Weights of
            LSTM, GRU and RNN have at least 8 bits where no override picks them, and are not in the average.
        flat: whether each of them has this width instead.
        layers: "all", "last:K", a regular expression or names of weights, see `select_weights`; or "auto":
            all, each in the first format of `candidates(spec)` in which ||dW||_2 is at most 1, and float32
            where there is none. `choices` of the result says what was tried.
        overrides: layers, in the forms above but "auto", or "=NAME", one weight -> another width or format:
            {"conv1": 8}. The last one that picks a weight counts; with "auto" these layers are not tried.
        rounding: a name of `ROUNDINGS`; by default "balanced" ("nearest" with the steps of another observer
            than "search"), with `calibration` "reconstructed". Of the methods up to it each weight takes the
            one that is best on held-out samples. "tuned" goes on from there: codes, steps, biases and norms
            are trained together for some minutes, so that the model answers like the float one; `tuning` of
            the result tells how that went.
        max_seconds: how long that training may take at most.
        observer: a name of `OBSERVERS`: how scale and mu are chosen.
        calibration: a few samples of what the model will be given, 4 or more, see `Calibration`: a tensor,
            arrays by name, a list of batches, a DataLoader, a generator, a data set; labels are left out. A
            quarter of them is held out. Codes are then chosen by the error of a layer's output, not of its
            weight: beside the float model's layer, on what the compressed ones in front show. Where the
            answers to those held out are better without, samples only choose widths.
        synthetic: whether, without `calibration`, pictures that are made up may stand for samples where
            widths are chosen, if the model takes pictures alone and `example` says no more than their shape.
            Of other inputs nothing is known then, and all weights have the width that was asked for.
        corrections: with `calibration`, whether biases may make up for the mean of a layer's error, and
            BatchNorm statistics may follow what compression does to activations, where held-out samples say
            that it helps.
        example: an input of the model, or several; by default the first of `calibration`. It is run to see
            which parameters of modules that are not known are weights, so that they can be compressed. The
            norms of a convolution depend on the size of its input; models of `muquant.models` know theirs,
            for others the norms of its matrix are reported where no example is given.
        finished: where each weight is kept once it is done, and taken from where it is there already: an
            interrupted job goes on.
        check: whether the model answers before and after, and `answers` of the result tells how alike: on
            the held-out samples, or without samples on the example, or on random numbers where that is
            constant. An `AnswersWarning` says so where the answers are no longer those of the float model.
        on_layer: called before each weight with its name, its place and their number, for progress; and
            after each step of tuning, with "tuning", the step and their number.

    Raises:
        InputError: no layer is picked, a weight holds NaN or infinity or has no size yet, a name is
            unknown, the model does not run on `example` or `calibration`, a sample holds NaN or infinity, or
            `rounding` needs a calibration that is not there.
    """
    options = CompressionOptions(
        spec=spec,
        flat=flat,
        layers=layers,
        overrides=overrides or {},
        rounding=rounding,
        max_seconds=max_seconds,
        observer=observer,
        calibration=calibration,
        synthetic=synthetic,
        corrections=corrections,
        finished=finished,
    )
    exact = ask_module(model, options, example) if check else None
    compressed = compress_module(model, options, example=example, on_layer=on_layer)
    if exact is None:
        return compressed
    answers = check_module(compressed.module, exact)
    answers.warn()
    return replace(compressed, answers=answers)


@torch.inference_mode(False)
@torch.enable_grad()
def compress_module(
    model: nn.Module,
    options: CompressionOptions,
    *,
    example: Example | None = None,
    shown: Example | None = None,
    on_layer: Callable[[str, int, int], None] | None = None,
    held_out: HeldOut | None = None,
) -> CompressedModel:
    """`compress`, with its options as one object. Where `shown` is given, that is run to find weights, and
    `example` is for the norms of convolutions alone. `held_out` returns what the float model answers to
    held-out samples, where that was asked already."""
    if options.finished is None and options.spreads and options.refines:
        with temporary_folder() as folder:  # what is rounded to choose widths is not rounded again
            kept = replace(options, finished=FinishedWeights(Path(folder, "weights")))
            return compress_module(model, kept, example=example, shown=shown, on_layer=on_layer)
    module, trained = frozen_copy(model)
    options = options.taken_by_module(module)
    exact = copy.deepcopy(module) if options.refines else None
    if exact is not None and held_out is None:
        held_out = cache(partial(ask_held_out, exact, options, MOST_JUDGED))
    if example is None and options.samples is not None:
        example = options.samples[0].first.example
    watched = example if shown is None else shown
    uses = None if watched is None else find_uses(module, watched)
    picked = _picked(module, options, trained, uses)
    own = {} if trained else override_formats(picked, options.format, options.overrides)
    if options.spreads and not trained:
        free = [weight for weight in picked if weight not in own]
        widths, tried = _spread(model, module, free, options, watched, on_layer, held_out)
        if tried is not None and not options.tuned:
            return tried
        own |= widths
    quantizer = Quantizer(options, trained, own, input_shapes(module, example))
    found: dict[Weight, Compressed] = {}
    outcomes: dict[Weight, Outcome] = {}
    choices: dict[Weight, Choice] = {}
    seen = samples_of(module, picked, options.samples, outcomes if options.in_turn else None)
    for index, (weight, samples, unseen) in enumerate(seen):
        if on_layer is not None:
            on_layer(weight.name, index, len(picked))
        with naming(weight.name):
            compressed, formats = quantizer(weight, samples, unseen)
        if formats:
            choices[weight] = Choice(weight.name, tuple(formats))
        if compressed is not None:
            found[weight], outcomes[weight] = compressed, compressed.outcome
    done = {weight: found[weight] for weight in picked if weight in found}
    if not done:
        raise InputError(
            'layers "auto": of no layer is ||dW||_2 at most 1, even at 8 bits; name the layers to compress'
        )
    plain = (
        {} if held_out is None else {each: quantizer.without_samples(each, own) for each, own in done.items()}
    )
    batch_norm, tuning = put_in_place(module, done, options), None
    if exact is not None and held_out is not None:
        if _is_better(plain, module, exact, held_out()):
            module.load_state_dict(exact.state_dict())
            put_in_place(module, plain)
            done, batch_norm = plain, None
        if options.tuned:
            tuning = _tune(module, exact, done, quantizer, on_layer)
    return CompressedModel(
        module,
        {weight.name: each.outcome.tensor for weight, each in done.items()},
        {alias: weight.name for weight in done for alias in weight.aliases},
        tuple(each.report for each in done.values()),
        tuple(choices[weight] for weight in picked if weight in choices),
        batch_norm,
        tuning,
        left_alone=left_float(module, done, _NO_FORMAT if options.layers == "auto" else "not picked", uses),
    )


def _picked(
    module: nn.Module,
    options: CompressionOptions,
    trained: Mapping[nn.Parameter, Trained],
    uses: Uses | None,
) -> list[Weight]:
    if not trained:
        return select_weights(module, "all" if options.layers == "auto" else options.layers, uses)
    if not options.are_default:
        raise InputError(
            "the model was prepared for quantization-aware training, which fixed its layers and format; "
            "call compress(model) with no option to freeze it"
        )
    return trained_weights(module, trained)


def _spread(
    model: nn.Module,
    module: nn.Module,
    weights: Sequence[Weight],
    options: CompressionOptions,
    example: Example | None,
    on_step: OnStep | None,
    held_out: HeldOut | None,
) -> tuple[dict[Weight, MuLawSpec], CompressedModel | None]:
    """Return formats of the weights of `module`, a copy of `model`, whose width may be chosen; and what the
    model becomes in these, where that was tried."""
    free = [weight for weight in weights if options.default_format(recurrent=weight.recurrent)[1] == ""]
    if len(free) < 2:
        return {}, None
    measured = measure_module(module, dict.fromkeys(free), options, example, on_step)
    tried: dict[tuple[int, ...], CompressedModel] = {}

    def compressed(widths: dict[str, int]) -> float:
        assert held_out is not None
        found = compress_module(
            model, options.with_widths(widths), example=example, on_layer=on_step, held_out=held_out
        )
        tried[tuple(widths.values())] = found
        return held_out().distortion(lambda batch: run_module(found.module, batch))

    widths = spread(measured, options.format.bits, compressed if held_out is not None else None)
    formats = {weight: options.format.with_bits(widths[weight.name]) for weight in free}
    return formats, tried.get(tuple(widths.values()))


def _is_better(
    plain: Mapping[Weight, Compressed],
    module: nn.Module,
    exact: nn.Module,
    held_out: FloatAnswers[Inputs],
) -> bool:
    """Whether the answers to held-out samples are less distorted with weights that no samples have shaped.

    Each layer may be better with samples and the network worse: they can be few, and unlike those held out.

    Args:
        plain: what becomes of the weights without samples.
        module: compressed with samples.
        exact: the float module.
        held_out: what that answers.
    """
    other = copy.deepcopy(exact)
    with torch.no_grad():
        for weight, each in plain.items():
            other.get_parameter(weight.name).copy_(each.outcome.tensor.dequantize())
    with_samples, without = (held_out.distortion(partial(run_module, each)) for each in (module, other))
    return without < with_samples


def _tune(
    module: nn.Module,
    reference: nn.Module,
    done: dict[Weight, Compressed],
    quantizer: Quantizer,
    on_layer: Callable[[str, int, int], None] | None,
) -> TuningReport:
    """Train `module`, whose weights are in place, towards the float `reference`; `done` and the module are
    changed."""
    options = quantizer.options
    assert options.samples is not None
    weights = {weight: each.outcome.tensor for weight, each in done.items()}
    fit, held_out = batches_of(options.samples)
    tuned = tune(
        subject_of(module, reference, weights, rest=options.corrections),
        fit.parts,
        held_out.parts,
        max_seconds=options.max_seconds,
        folder=None if options.finished is None else options.finished.folder,
        on_step=None if on_layer is None else lambda step, steps, _: on_layer("tuning", step, steps),
    )
    if not tuned.report.step:
        return tuned.report
    for weight, each in done.items():
        if weight.name not in tuned.weights:
            continue
        outcome = replace(each.outcome, tensor=tuned.weights[weight.name], rounding=TUNED, output=None)
        before, report = reference.get_parameter(weight.name).detach(), each.report
        done[weight] = quantizer.reported(weight, before, outcome, report.not_calibrated, report.note)
        weight.replace(outcome.tensor.dequantize())
    with torch.no_grad():
        for path, value in tuned.rest.items():
            module.get_parameter(path).copy_(value)
    return tuned.report
