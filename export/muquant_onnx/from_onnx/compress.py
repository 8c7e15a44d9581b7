"""Compress an ONNX file from anywhere: find its weights, code them one at a time, write it anew."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import onnx_ir as ir
import psutil

from muquant.base.files import scratch_folder, temporary_folder
from muquant.compression.answers.compare import FloatAnswers
from muquant.compression.budget.measure import OnStep
from muquant.compression.budget.spread import spread
from muquant.compression.calibration import Calibration
from muquant.compression.options import CompressionOptions
from muquant.compression.quantizer import NO_HELP
from muquant.compression.selection import Layers, Override, override_specs, pick
from muquant.format.spec import MuLawSpec
from muquant.quantization.resume import FinishedWeights
from muquant_onnx.files.write import write_graph
from muquant_onnx.format.metadata import add_metadata
from muquant_onnx.from_onnx.check import SessionRun, ask_file, check_file
from muquant_onnx.from_onnx.edit import replace_weights
from muquant_onnx.from_onnx.feeds import Batch, Feeds, graph_arguments
from muquant_onnx.from_onnx.find import FoundWeight, require_weights
from muquant_onnx.from_onnx.given import GivenModel, as_file
from muquant_onnx.from_onnx.measure import MEMORY, ask_held_out, measure_file
from muquant_onnx.from_onnx.opset import RaisedFile, raised
from muquant_onnx.from_onnx.quantizer import Quantizer
from muquant_onnx.from_onnx.read import read_graph
from muquant_onnx.from_onnx.report import CompressReport, LeftAlone
from muquant_onnx.from_onnx.spool import Spool
from muquant_onnx.from_onnx.synthetic import with_synthetic
from muquant_onnx.lowering.lower import forms_by_weight
from muquant_onnx.lowering.targets import DEFAULT, Target, choose_target
from muquant_onnx.serving.sessions import load_session

HeldOut = Callable[[], FloatAnswers[Batch]]


def compress_onnx(
    source: GivenModel,
    destination: str | os.PathLike[str],
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
    target: str = "onnxruntime",
    policy: str | None = None,
    functions: bool | None = None,
    finished: FinishedWeights | None = None,
    check: bool = True,
    on_layer: Callable[[str, int, int], None] | None = None,
) -> CompressReport:
    """Write the ONNX model `source` to `destination` with its weights in few bits; whole or not at all.

    Weights are the constants that layers compute with: MatMul, Gemm, Conv, ConvTranspose, Einsum, Gather,
    LSTM, GRU, RNN, and layers that are onnxruntime's own. Those of recurrent layers have 8 bits where no
    override says otherwise. Everything else stays as it is. One weight at a time is in memory; where widths
    are chosen, on samples or made-up inputs, and for the check of the answers, onnxruntime has the whole
    model in memory, several times. What one file of 2 GB cannot hold is written beside it, into a file that
    is named after its content.

    Args:
        source: the path of an ONNX file of opset 7 or later, with or without external data; or what is in
            the file, as bytes or as an `onnx.ModelProto`. An opset below 13 is raised to 13, and onnxruntime
            has to give the same outputs before and after.
        destination: of the new file; may be `source`.
        spec: the format; 3 bits, mu searched, a scale for each channel by default. Its width is the average
            over the weights that no override picks, but recurrent ones: each has 2 to 8 bits, by what its
            error does to the answers of the graph, run on `calibration` or on made-up pictures or tokens.
        flat: whether each of them has this width instead.
        layers: "all", "last:K" (of the weights, in the order in which the graph uses them) or a regular
            expression, searched in the name of the weight and in those of the nodes that use it; or a list of
            whole names of weights.
        overrides: layers, in these forms, or "=NAME", one weight -> another width or format: {"conv1": 8}.
            The last one that picks a weight counts.
        rounding: a name of `ROUNDINGS`; by default "balanced" ("nearest" with the steps of another observer
            than "search"), with `calibration` "reconstructed". Of the methods up to it each weight takes the
            one that is best on held-out samples. "tuned" goes on from there: codes, steps, biases and norms
            are trained together for some minutes, by a copy of the graph in PyTorch, so that it answers like
            the float one; `tuning` of the report tells how that went, and why it was left out where no such
            copy can be had.
        max_seconds: how long that training may take at most.
        observer: a name of `OBSERVERS`: how scale and mu are chosen.
        calibration: a few samples for the graph's inputs, 4 or more, by name or in order, see `Calibration`:
            arrays, a list of batches, a DataLoader, a generator; a quarter of them is held out. onnxruntime
            runs the graph on them. Where it answers those held out no better than with weights that no
            samples have shaped, these are taken, and `not_calibrated` of each says so. States that they
            lack are zero; `zero_inputs` of the report names these.
        synthetic: whether, without `calibration`, inputs that are made up stand for samples where the graph
            takes pictures or tokens alone: pictures of shapes, any tokens. `synthetic` of the report says how
            many. Not so with `flat`, or where a rounding is asked for. Of other inputs nothing is known, and
            all weights have the width that was asked for.
        corrections: with `calibration`, whether biases may make up for the mean of a layer's error, where
            held-out samples say that it helps.
        target: a name of `TARGETS`: what the file is for.
        policy: "float", "int8", "int4" or "auto", see `lower`; by default what is best for the target.
        functions: whether what decodes stays in functions of the file: fewer nodes, but not every runtime
            knows functions. By default the target says.
        finished: where each weight is kept once it is done, and taken from where it is there already: an
            interrupted job goes on.
        check: whether onnxruntime runs both files, with the options that it comes with, and `answers` of the
            report tells how alike they answer: on the held-out samples, or without samples on inputs made up
            from the types and shapes of the graph's inputs. An `AnswersWarning` says so where the answers are
            no longer those of the float model. It takes the memory of the whole model.
        on_layer: called before each weight with its name, its place and their number, for progress; and
            after each step of tuning, with "tuning", the step and their number.

    Raises:
        InputError: the file cannot be used, or holds nothing to compress; no layer is picked; a weight holds
            NaN or infinity; a name is unknown; samples do not fit the graph; the result cannot be written.
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
    chosen = choose_target(target, policy, functions)
    with as_file(source) as path, raised(path) as file:
        report = compress_file(file, Path(destination), options, chosen, check=check, on_layer=on_layer)
    if report.answers is not None:
        report.answers.warn()
    return report


def compress_file(
    source: RaisedFile,
    destination: Path,
    options: CompressionOptions,
    target: Target = DEFAULT,
    *,
    check: bool = False,
    on_layer: Callable[[str, int, int], None] | None = None,
    held_out: HeldOut | None = None,
) -> CompressReport:
    """`compress_onnx` of a file that `raised` has yielded, with its options as one object. `held_out` returns
    what the float file answers to held-out samples, where that was asked already."""
    source.check_output(destination)
    if options.finished is None and options.spreads and options.refines:
        with temporary_folder() as folder:  # what is rounded to choose widths is not rounded again
            kept = replace(options, finished=FinishedWeights(Path(folder, "weights")))
            return compress_file(source, destination, kept, target, check=check, on_layer=on_layer)
    read = read_graph(source.path)
    model = read.model
    options = options.taken_by(graph_arguments(model.graph))
    if options.refines and held_out is None:
        held_out = cache(partial(ask_held_out, source.path, options))
    exact = ask_file(source.path, model.graph, read.nbytes, options) if check else None
    fit = None if options.samples is None else options.samples[0]
    zeros = () if fit is None else Feeds.of(model.graph, fit, source.path).zeros
    options = with_synthetic(source.path, model.graph, read.nbytes, options)
    found, left_alone = require_weights(model, source.path)
    picked = pick_weights(found, options.layers)
    own = own_formats(picked, options)
    free = [weight for weight in picked if weight not in own]
    widths = _spread(source, free, options, target, on_layer, held_out)
    chosen = {weight.name: spec.bits for weight, spec in widths.items()}
    formats = dict[FoundWeight, tuple[MuLawSpec, str]]()
    for weight in picked:
        default, note = options.default_format(recurrent=weight.recurrent)
        formats[weight] = (own[weight], "") if weight in own else (widths.get(weight, default), note)
    not_picked = (weight for weight in found if weight not in formats)
    with scratch_folder(destination) as scratch:
        quantizer = Quantizer(source.path, model, formats, options, Spool(scratch / "packed"))
        quantizer.quantize(on_layer)
        tuning = quantizer.tune(on_layer) if options.tuned else None
        packed = quantizer.packed
        served = replace_weights(model, [(weight, packed[weight.name]) for weight in picked], target)
        add_metadata(model, packed, target.policy, forms_by_weight(served))
        alone = options.with_widths(chosen)
        if held_out is not None and not _helped(source, read.nbytes, model, alone, target, scratch, held_out):
            plain = _without_samples(source, destination, alone, target)
            answers = None if exact is None else check_file(destination, exact)
            return replace(plain, answers=answers, zero_inputs=zeros, tuning=tuning)
        written = write_graph(model, destination, scratch)
    return CompressReport(
        path=os.fspath(destination),
        nbytes=written.nbytes,
        source_nbytes=read.nbytes if source.nbytes is None else source.nbytes,
        data_path=None if written.data is None else str(written.data),
        policy=target.policy,
        weights=tuple(
            replace(report, served=tuple(use for use in served if use.weight == report.name))
            for report in (quantizer.reports[weight] for weight in picked)
        ),
        left_alone=tuple(sorted([*left_alone, *map(_not_picked, not_picked)], key=lambda left: -left.nbytes)),
        raised_from=source.opset,
        answers=None if exact is None else check_file(destination, exact),
        zero_inputs=zeros,
        tuning=tuning,
        synthetic=sum(part.count for part in options.samples) if options.made_up and options.samples else 0,
    )


def pick_weights(found: Sequence[FoundWeight], layers: Layers) -> list[FoundWeight]:
    """Return the weights that `layers` picks, at least one, in their order."""
    labels, names = [weight.labels for weight in found], [weight.name for weight in found]
    return [found[place] for place in pick(labels, layers, "layers", names)]


def _spread(
    source: RaisedFile,
    weights: Sequence[FoundWeight],
    options: CompressionOptions,
    target: Target,
    on_step: OnStep | None,
    held_out: HeldOut | None,
) -> dict[FoundWeight, MuLawSpec]:
    """Return formats of the weights whose width may be chosen."""
    free = [weight for weight in weights if not options.default_format(recurrent=weight.recurrent)[1]]
    if not options.spreads or len(free) < 2:
        return {}
    measured = measure_file(source.path, dict.fromkeys(free), options, on_step)
    with temporary_folder() as folder:
        tried = Path(folder, "tried.onnx")

        def compressed(widths: dict[str, int]) -> float:
            assert held_out is not None
            own = options.with_widths(widths)
            compress_file(source, tried, own, target, on_layer=on_step, held_out=held_out)
            return held_out().distortion(SessionRun(load_session(tried)))

        widths = spread(measured, options.format.bits, compressed if held_out is not None else None)
    return {weight: options.format.with_bits(widths[weight.name]) for weight in free}


def _helped(
    source: RaisedFile,
    nbytes: int,
    model: ir.Model,
    options: CompressionOptions,
    target: Target,
    scratch: Path,
    held_out: HeldOut,
) -> bool:
    """Whether the answers to held-out samples are not more distorted than with weights that no samples have
    shaped, or the file is too large for onnxruntime to be asked. Each layer may be better with samples and
    the graph worse: they can be few, and unlike those held out.

    Args:
        source: the float file.
        nbytes: its size with external data.
        model: compressed with samples.
        options: of its compression, with the widths that were chosen.
        target: what the file is for.
        scratch: a folder for files that are not done.
        held_out: returns what the float file answers.
    """
    if MEMORY * nbytes > psutil.virtual_memory().available:
        return True
    ours, plain = scratch / "ours.onnx", scratch / "plain.onnx"
    write_graph(model, ours, scratch)
    _without_samples(source, plain, options, target)
    with_samples, without = (held_out().distortion(SessionRun(load_session(each))) for each in (ours, plain))
    return with_samples <= without


def _without_samples(
    source: RaisedFile, destination: Path, options: CompressionOptions, target: Target
) -> CompressReport:
    """Compress a file with the same widths, by its weights alone."""
    alone = replace(options, calibration=None, synthetic=False, rounding=None, flat=True, finished=None)
    report = compress_file(source, destination, alone, target)
    return replace(
        report, weights=tuple(replace(weight, not_calibrated=NO_HELP) for weight in report.weights)
    )


def own_formats(picked: Sequence[FoundWeight], options: CompressionOptions) -> dict[FoundWeight, MuLawSpec]:
    """Return the formats of those that an override picks among `picked`."""
    labels, names = [weight.labels for weight in picked], [weight.name for weight in picked]
    formats: dict[FoundWeight, MuLawSpec] = {}
    for places, own in override_specs(labels, options.format, options.overrides, names):
        formats.update({picked[place]: own for place in places})
    return formats


def _not_picked(weight: FoundWeight) -> LeftAlone:
    return LeftAlone(weight.source, weight.uses[0].kind, "it was not picked", weight.tensor.nbytes)
