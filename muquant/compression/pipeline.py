"""The pipeline: select layers, observe, round, and keep the result as one `CompressedModel`."""

import copy
import tempfile
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path

import torch
from torch import Tensor, nn

from muquant.base.errors import InputError, naming
from muquant.compression.answers.modules import ask_held_out, ask_module, check_module, run_module
from muquant.compression.artifact import CompressedModel, LayerReport
from muquant.compression.auto import CRITERION, Choice, TriedFormat, candidates
from muquant.compression.batch_norm import Reestimation, batch_norms, reestimate_batch_norms
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
from muquant.compression.selection import Override
from muquant.compression.sensitivity import Shape, input_shapes, layer_norms
from muquant.compression.tuning import TuningReport, batches_of, subject_of, tune
from muquant.format.spec import MuLawSpec
from muquant.models.calls import Example
from muquant.quantization.moments import InputMoments
from muquant.quantization.outcome import Outcome
from muquant.quantization.quantize import quantize
from muquant.quantization.resume import FinishedWeights

_NO_FORMAT = f"no format met ||dW||_2 <= {CRITERION:g}"


def compress(
    model: nn.Module,
    spec: MuLawSpec | None = None,
    *,
    flat: bool = False,
    layers: str = "all",
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
        layers: "all", "last:K" or a regular expression, see `select_weights`; or "auto": all, each in the
            first format of `candidates(spec)` in which ||dW||_2 is at most 1, and float32 where there is
            none. `choices` of the result says what was tried.
        overrides: layers, in the forms above but "auto", or "=NAME", one weight -> another width or format:
            {"conv1": 8}. The last one that picks a weight counts; with "auto" these layers are not tried.
        rounding: a name of `ROUNDINGS`; by default "balanced", with `calibration` "reconstructed". Of the
            methods up to it each weight takes the one that is best on held-out samples. "tuned" goes on from
            there: codes, steps, biases and norms are trained together for some minutes, so that the model
            answers like the float one; `tuning` of the result tells how that went.
        max_seconds: how long that training may take at most.
        observer: a name of `OBSERVERS`: how scale and mu are chosen.
        calibration: a few samples of what the model will be given, 4 or more, see `Calibration`: a tensor,
            arrays by name, a list of batches, a DataLoader, a generator, a data set; labels are left out. A
            quarter of them is held out. Codes are then chosen by the error of a layer's output, not of its
            weight.
        synthetic: whether, without `calibration`, random inputs like a constant `example` may stand for
            samples where widths are chosen.
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
) -> CompressedModel:
    """`compress`, with its options as one object. Where `shown` is given, that is run to find weights, and
    `example` is for the norms of convolutions alone."""
    if options.finished is None and options.spreads and options.refines:
        with tempfile.TemporaryDirectory() as folder:  # what is rounded to choose widths is not rounded again
            kept = replace(options, finished=FinishedWeights(Path(folder, "weights")))
            return compress_module(model, kept, example=example, shown=shown, on_layer=on_layer)
    module, trained = frozen_copy(model)
    options = options.taken_by_module(module)
    if example is None and options.samples is not None:
        example = options.samples[0].first.example
    watched = example if shown is None else shown
    uses = None if watched is None else find_uses(module, watched)
    picked = _picked(module, options, trained, uses)
    own = {} if trained else override_formats(picked, options.format, options.overrides)
    if options.spreads and not trained:
        free = [weight for weight in picked if weight not in own]
        own |= _spread(model, module, free, options, watched, on_layer)
    quantizer = _Quantizer(options, trained, own, input_shapes(module, example))
    done: dict[Weight, _Compressed] = {}
    choices: list[Choice] = []
    for index, (weight, samples, unseen) in enumerate(samples_of(module, picked, options.samples)):
        if on_layer is not None:
            on_layer(weight.name, index, len(picked))
        with naming(weight.name):
            compressed, tried = quantizer(weight, samples, unseen)
        if tried:
            choices.append(Choice(weight.name, tuple(tried)))
        if compressed is not None:
            done[weight] = compressed
    if not done:
        raise InputError(
            'layers "auto": of no layer is ||dW||_2 at most 1, even at 8 bits; name the layers to compress'
        )
    reference = copy.deepcopy(module) if options.tuned else None
    batch_norm = _put_in_place(module, done, options)
    tuning = None if reference is None else _tune(module, reference, done, quantizer, on_layer)
    return CompressedModel(
        module,
        {weight.name: each.outcome.tensor for weight, each in done.items()},
        {alias: weight.name for weight in done for alias in weight.aliases},
        tuple(each.report for each in done.values()),
        tuple(choices),
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
) -> dict[Weight, MuLawSpec]:
    """Return formats of the weights of `module`, a copy of `model`, whose width may be chosen."""
    free = [weight for weight in weights if options.default_format(recurrent=weight.recurrent)[1] == ""]
    if len(free) < 2:
        return {}
    measured = measure_module(module, dict.fromkeys(free), options, example, on_step)

    held_out = cache(partial(ask_held_out, module, options, MOST_JUDGED))

    def compressed(widths: dict[str, int]) -> float:
        tried = compress_module(model, options.with_widths(widths), example=example, on_layer=on_step)
        return held_out().distortion(lambda batch: run_module(tried.module, batch))

    widths = spread(measured, options.format.bits, compressed if options.refines else None)
    return {weight: options.format.with_bits(widths[weight.name]) for weight in free}


@dataclass(frozen=True, eq=False)
class _Compressed:
    outcome: Outcome
    report: LayerReport


@dataclass(frozen=True, eq=False)
class _Quantizer:
    """Quantizes weights as they were asked for; those that were trained at few bits as they were trained.

    Attributes:
        options: what was asked for.
        trained: weight -> how it was trained for few bits.
        own: the formats of weights that have one of their own.
        shapes: of the inputs of convolutions, see `input_shapes`.
    """

    options: CompressionOptions
    trained: Mapping[nn.Parameter, Trained]
    own: Mapping[Weight, MuLawSpec]
    shapes: Mapping[nn.Module, Collection[Shape]]

    def __call__(
        self, weight: Weight, samples: InputMoments | None, unseen: str
    ) -> tuple[_Compressed | None, list[TriedFormat]]:
        """Return what becomes of a weight, None where it stays float32, and what "auto" tried for it;
        `unseen` says why its inputs are not known."""
        options = self.options
        if weight in self.own:
            return self._compressed(weight, self.own[weight], samples, unseen), []
        if options.layers != "auto":
            spec, note = options.default_format(recurrent=weight.recurrent and not self.trained)
            return self._compressed(weight, spec, samples, unseen, note), []
        tried: list[TriedFormat] = []
        for spec in candidates(options.format):
            found = self._compressed(weight, spec, samples, unseen)
            tried.append(TriedFormat(spec.bits, spec.domain, found.report.delta_norms.two))
            if tried[-1].good:
                return found, tried
        return None, tried

    def _compressed(
        self, weight: Weight, spec: MuLawSpec, samples: InputMoments | None, unseen: str, note: str = ""
    ) -> _Compressed:
        return self.reported(
            weight, weight.value.detach(), self._outcome(weight, spec, samples), unseen, note
        )

    def reported(
        self, weight: Weight, before: Tensor, outcome: Outcome, unseen: str, note: str
    ) -> _Compressed:
        """Return an outcome with what is said of it; the float weight was `before`."""
        after = outcome.tensor.dequantize()
        matrix, operator = layer_norms(weight.owners, after - before, self.shapes)
        report = LayerReport(
            **outcome.summary(weight.name, before, unseen),
            note=note,
            matrix_norms=matrix,
            operator_norms=operator,
            float_nbytes=4 * before.numel(),
        )
        return _Compressed(outcome, report)

    def _outcome(self, weight: Weight, spec: MuLawSpec, samples: InputMoments | None) -> Outcome:
        trained = self.trained.get(weight.value)  # type: ignore[call-overload]
        if trained is not None:
            if trained.fake.observer_enabled[0] == 1:
                trained.fake.observe(weight.value)
            return Outcome(trained.fake.quantize(weight.value), trained.rounding)
        return quantize(
            weight.value.detach(),
            spec,
            weight.channels,
            self.options.observer,
            self.options.method,
            samples,
            biased=self.options.corrections and weight.own_bias is not None,
            finished=self.options.finished,
        )


def _put_in_place(
    module: nn.Module, done: Mapping[Weight, _Compressed], options: CompressionOptions
) -> Reestimation | None:
    """Give the layers of `module` what became of their weights, and the corrections that help."""
    samples = options.samples if options.corrections and batch_norms(module) else None
    reference = copy.deepcopy(module) if samples is not None else None
    for weight, each in done.items():
        weight.replace(each.outcome.tensor.dequantize())
        if each.outcome.shift is not None and weight.own_bias is not None:
            with torch.no_grad():
                weight.own_bias.add_(each.outcome.shift)
    if reference is None or samples is None:
        return None
    return reestimate_batch_norms(module, reference, *samples)


def _tune(
    module: nn.Module,
    reference: nn.Module,
    done: dict[Weight, _Compressed],
    quantizer: _Quantizer,
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
