"""`muquant compress`."""

from pathlib import Path
from typing import Any

import click
import torch

import muquant
from muquant.training import load_run
from muquant_cli.export import report_export
from muquant_cli.inspect import layer_rows, layers_document, show_layers
from muquant_cli.options import format_options, out_option, parse_mu, policy_option
from muquant_cli.output import Output, command
from muquant_onnx import export_onnx


@click.command()
@click.argument("source", type=click.Path(path_type=Path))
@out_option("model.mq, or model.onnx to export at once")
@format_options
@policy_option
@command
def compress(
    output: Output,
    source: Path,
    out: Path,
    layers: str,
    rounding: str,
    observer: str,
    policy: str,
    **options: Any,
) -> None:
    """Compress the weights of SOURCE, a run folder, to few bits."""
    check_suffix(out)
    spec = muquant.MuLawSpec(**{**options, "mu": parse_mu(options["mu"])})
    model = load_run(source)
    with output.progress("Compressing") as update:
        compressed = muquant.compress(
            model,
            spec,
            layers=layers,
            rounding=rounding,
            observer=observer,
            on_layer=lambda name, index, count: update(index, count, name),
        )
    report = None
    if out.suffix == ".onnx":
        report = export_onnx(compressed, out, torch.zeros(2, *model.architecture.input_shape), policy)
    else:
        compressed.save(out)
    show_layers(output, f"{source} at {spec.bits} bits", layer_rows(compressed.report))
    document: dict[str, Any] = {}
    if report is not None:
        document = report_export(output, report)
    else:
        output.say(f"Wrote {out}: {out.stat().st_size:,} bytes")
    output.result(
        {**document, "path": str(out), "nbytes": out.stat().st_size, **layers_document(compressed.report)}
    )


def check_suffix(out: Path) -> None:
    """Refuse an output that is neither an artifact nor an ONNX file, before any work is done."""
    if out.suffix not in (".mq", ".onnx"):
        raise muquant.InputError(
            f"cannot tell what {out} should be; expected a name that ends in .mq or .onnx"
        )
