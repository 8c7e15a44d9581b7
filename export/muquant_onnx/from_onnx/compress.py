"""Compress an ONNX file from anywhere: find its weights, code them one at a time, write it anew."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import onnx_ir as ir

from muquant.errors import InputError, naming
from muquant.files import scratch_folder
from muquant.observers import observer_class
from muquant.quantize import quantize
from muquant.rounding import refinements
from muquant.selection import Override, override_specs, pick
from muquant.spec import MuLawSpec
from muquant_onnx.from_onnx.edit import replace_weights
from muquant_onnx.from_onnx.find import FoundWeight, find_weights
from muquant_onnx.from_onnx.quality import weight_sqnr
from muquant_onnx.from_onnx.read import read_graph
from muquant_onnx.from_onnx.report import CompressReport, LeftAlone, WeightReport
from muquant_onnx.from_onnx.spool import Spool
from muquant_onnx.from_onnx.stored import read_float
from muquant_onnx.from_onnx.write import write_graph
from muquant_onnx.lowering import check_policy
from muquant_onnx.metadata import add_metadata
from muquant_onnx.packed_weight import PackedWeight


def compress_onnx(
    source: str | os.PathLike[str],
    destination: str | os.PathLike[str],
    spec: MuLawSpec | None = None,
    *,
    layers: str = "all",
    overrides: Mapping[str, Override] | None = None,
    rounding: str = "nearest",
    observer: str = "search",
    policy: str = "auto",
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
        overrides: layers, in these forms -> another width or format: {"conv1": 8}. The last one that picks a
            weight counts.
        rounding: a name of `ROUNDINGS`.
        observer: a name of `OBSERVERS`: how scale and mu are chosen.
        policy: "float", "int8" or "auto", see `lower`.
        on_layer: called before each weight with its name, its place and their number, for progress.

    Raises:
        InputError: the file cannot be used, or holds nothing to compress; no layer is picked; a weight holds
            NaN or infinity; a name is unknown; the result cannot be written.
    """
    asked, spec = check_policy(policy), spec or MuLawSpec()
    observer_class(observer), refinements(rounding)
    read = read_graph(Path(source))
    model = read.model
    found, left_alone = find_weights(model)
    if not found:
        raise InputError(f"{source} holds no weight to compress{_first_reason(left_alone)}")
    labels = [weight.labels for weight in found]
    picked = pick(labels, layers, "layers")
    formats = dict.fromkeys(picked, spec)
    for places, own in override_specs([labels[place] for place in picked], spec, overrides or {}):
        formats.update({picked[place]: own for place in places})
    with scratch_folder(destination) as scratch:
        spool, packed, ratios = Spool(scratch / "packed"), {}, {}
        for number, (place, form) in enumerate(formats.items()):
            weight = found[place]
            if on_layer is not None:
                on_layer(weight.name, number, len(formats))
            with naming(weight.name):
                packed[weight.name], ratios[weight.name] = _code(weight, form, observer, rounding, spool)
        chosen = [found[place] for place in formats]
        served = replace_weights(model, [(weight, packed[weight.name]) for weight in chosen], asked)
        add_metadata(model, packed, asked, served)
        written = write_graph(model, Path(destination), scratch)
    return CompressReport(
        path=os.fspath(destination),
        nbytes=written.nbytes,
        source_nbytes=read.nbytes,
        data_path=None if written.data is None else str(written.data),
        policy=asked,
        weights=tuple(
            WeightReport(
                name=weight.name,
                source=weight.source,
                shape=packed[weight.name].shape,
                bits=packed[weight.name].spec.bits,
                domain=packed[weight.name].spec.domain,
                mu=float(packed[weight.name].spec.mu),
                sqnr=ratios[weight.name],
                nbytes=packed[weight.name].nbytes,
                source_nbytes=weight.tensor.nbytes,
                served=tuple(use for use in served if use.weight == weight.name),
            )
            for weight in chosen
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


def _code(
    weight: FoundWeight, form: MuLawSpec, observer: str, rounding: str, spool: Spool
) -> tuple[PackedWeight, float | None]:
    """Read, quantize and pack one weight, of which only the steps stay in memory; and return its SQNR."""
    values = read_float(weight.tensor)
    quantized = quantize(values, form, weight.channel_axis, observer, rounding).tensor
    ratio = weight_sqnr(values, quantized)
    del values  # it is not needed while the codes are packed
    return spool.add(weight.name, quantized, ir.DataType(weight.tensor.dtype)), ratio


def _first_reason(left_alone: list[LeftAlone]) -> str:
    if not left_alone:
        return "; expected constants that MatMul, Gemm, Conv, ConvTranspose or Gather computes with"
    first = left_alone[0]
    return f"; {len(left_alone)} are left alone, such as {first.name} ({first.consumer}): {first.reason}"
