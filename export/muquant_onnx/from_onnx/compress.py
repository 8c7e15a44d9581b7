"""Compress an ONNX file from anywhere: find its weights, code them one at a time, write it anew."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import onnx_ir as ir
from torch import Tensor

from muquant.base.errors import naming
from muquant.base.files import scratch_folder
from muquant.compression.selection import Override, override_specs, pick
from muquant.format.spec import MuLawSpec
from muquant.models.calls import Example
from muquant.quantization.observers import observer_class
from muquant.quantization.outcome import Quantized
from muquant.quantization.quantize import choose_rounding, quantize
from muquant.quantization.resume import Finished
from muquant_onnx.files.write import write_graph
from muquant_onnx.format.metadata import add_metadata
from muquant_onnx.from_onnx.biases import find_bias
from muquant_onnx.from_onnx.calibrate import graph_samples
from muquant_onnx.from_onnx.edit import replace_weights
from muquant_onnx.from_onnx.find import FoundWeight, require_weights
from muquant_onnx.from_onnx.floats import read_float
from muquant_onnx.from_onnx.read import read_graph
from muquant_onnx.from_onnx.report import CompressReport, LeftAlone, WeightReport
from muquant_onnx.from_onnx.spool import Spool
from muquant_onnx.lowering.lower import check_policy, forms_by_weight


def compress_onnx(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    spec: MuLawSpec | None = None,
    *,
    layers: str = "all",
    overrides: Mapping[str, Override] | None = None,
    rounding: str | None = None,
    observer: str = "search",
    calibration: Example | None = None,
    corrections: bool = True,
    policy: str = "auto",
    finished: Finished | None = None,
    on_layer: Callable[[str, int, int], None] | None = None,
) -> CompressReport:
    """Write the ONNX file `source` to `destination` with its weights in few bits; whole or not at all.

    Weights are the constants that MatMul, Gemm, Conv, ConvTranspose and Gather compute with. Everything else
    stays as it is. One weight at a time is in memory. What one file of 2 GB cannot hold is written beside it,
    into a file that is named after its content.

    Args:
        source: an ONNX file of opset 13 or later, with or without external data.
        destination: of the new file; may be `source`.
        spec: the format; 3 bits, mu searched, a scale for each channel by default.
        layers: "all", "last:K" (of the weights, in the order in which the graph uses them) or a regular
            expression, searched in the name of the weight and in those of the nodes that use it.
        overrides: layers, in these forms, or "=NAME", one weight -> another width or format: {"conv1": 8}.
            The last one that picks a weight counts.
        rounding: a name of `ROUNDINGS`; by default "nearest", with `calibration` "reconstructed". Of the
            methods up to it each weight takes the one that is best on held-out samples.
        observer: a name of `OBSERVERS`: how scale and mu are chosen.
        calibration: a few samples for the graph's inputs [N, ...], 4 or more, by name or in order; a quarter
            of them is held out. onnxruntime runs the graph on them.
        corrections: with `calibration`, whether biases may make up for the mean of a layer's error, where
            held-out samples say that it helps.
        policy: "float", "int8", "int4" or "auto", see `lower`.
        finished: where each weight is kept once it is done, and taken from where it is there already: an
            interrupted job goes on.
        on_layer: called before each weight with its name, its place and their number, for progress.

    Raises:
        InputError: the file cannot be used, or holds nothing to compress; no layer is picked; a weight holds
            NaN or infinity; a name is unknown; samples do not fit the graph; the result cannot be written.
    """
    asked, spec = check_policy(policy), spec or MuLawSpec()
    observer_class(observer)
    method = choose_rounding(rounding, calibrated=calibration is not None)
    read = read_graph(Path(source))
    model = read.model
    found, left_alone = require_weights(model, source)
    picked = pick([weight.labels for weight in found], layers, "layers")
    formats = dict.fromkeys(picked, spec)
    formats.update(pinned_formats(found, picked, spec, overrides))
    with scratch_folder(destination) as scratch:
        spool, packed, reports = Spool(scratch / "packed"), {}, []
        chosen = {found[place]: form for place, form in formats.items()}
        known = graph_samples(Path(source), list(chosen), calibration)
        for number, (weight, samples) in enumerate(known):
            if on_layer is not None:
                on_layer(weight.name, number, len(chosen))
            with naming(weight.name):
                values = read_float(weight.tensor)
                bias = find_bias(weight, model.graph) if corrections else None
                quantized = quantize(
                    values,
                    chosen[weight],
                    weight.channel_axis,
                    observer,
                    method,
                    samples,
                    biased=bias is not None,
                    finished=finished,
                )
                reports.append(_report(weight, values, quantized))
                del values  # it is not needed while the codes are packed
                if bias is not None and quantized.shift is not None:
                    bias.shift(quantized.shift, weight)
                packed[weight.name] = spool.add(
                    weight.name, quantized.tensor, ir.DataType(weight.tensor.dtype)
                )
        served = replace_weights(model, [(weight, packed[weight.name]) for weight in chosen], asked)
        add_metadata(model, packed, asked, forms_by_weight(served))
        written = write_graph(model, Path(destination), scratch)
    return CompressReport(
        path=os.fspath(destination),
        nbytes=written.nbytes,
        source_nbytes=read.nbytes,
        data_path=None if written.data is None else str(written.data),
        policy=asked,
        weights=tuple(
            replace(report, served=tuple(use for use in served if use.weight == report.name))
            for report in reports
        ),
        left_alone=(
            *left_alone,
            *(
                LeftAlone(weight.source, weight.uses[0].kind, "it was not picked")
                for place, weight in enumerate(found)
                if place not in formats
            ),
        ),
    )


def pinned_formats(
    found: Sequence[FoundWeight],
    picked: Sequence[int],
    spec: MuLawSpec,
    overrides: Mapping[str, Override] | None,
) -> dict[int, MuLawSpec]:
    """Return the formats of those that `overrides` picks among the `picked` places of `found`, by place."""
    weights = [found[place] for place in picked]
    labels, names = [weight.labels for weight in weights], [weight.name for weight in weights]
    formats: dict[int, MuLawSpec] = {}
    for places, own in override_specs(labels, spec, overrides or {}, names):
        formats.update({picked[place]: own for place in places})
    return formats


def _report(weight: FoundWeight, values: Tensor, outcome: Quantized) -> WeightReport:
    return WeightReport(
        **outcome.summary(weight.name, values),
        source=weight.source,
        source_nbytes=weight.tensor.nbytes,
        served=(),
    )
