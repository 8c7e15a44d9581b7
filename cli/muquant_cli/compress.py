"""`muquant compress`."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import click
import torch

import muquant
from muquant.sensitivity import Choice, Trial
from muquant.training import load_run, read_run
from muquant_cli.export import report_export
from muquant_cli.inspect import layer_rows, layers_document, show_layers
from muquant_cli.options import format_options, out_option, parse_bits, parse_mu, policy_option
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
    bits: str,
    mu: str,
    layers: str,
    rounding: str,
    observer: str,
    policy: str,
    **options: Any,
) -> None:
    """Compress the weights of SOURCE, a run folder, to few bits; after `train --qat` as it was trained."""
    check_suffix(out)
    width, overrides = parse_bits(bits)
    spec = muquant.MuLawSpec(bits=width, mu=parse_mu(mu), **options)
    model = load_run(source)
    trained = read_run(source).config.qat is not None  # it fixed the format, and refuses any other
    with output.progress("Compressing") as update:
        compressed = muquant.compress(
            model,
            None if trained and spec == muquant.MuLawSpec() else spec,
            layers=layers,
            overrides=overrides,
            rounding=rounding,
            observer=observer,
            on_layer=lambda name, index, count: update(index, count, name),
        )
    report = None
    if out.suffix == ".onnx":
        report = export_onnx(compressed, out, torch.zeros(2, *model.architecture.input_shape), policy)
    else:
        compressed.save(out)
    what = f"{source} as it was trained" if trained else f"{source} at {bits} bits"
    show_layers(output, what, layer_rows(compressed.report))
    document: dict[str, Any] = {}
    if compressed.choices:
        document["choices"] = show_choices(output, compressed.choices)
    if report is not None:
        document.update(report_export(output, report))
    else:
        output.say(f"Wrote {out}: {out.stat().st_size:,} bytes")
    output.result(
        {**document, "path": str(out), "nbytes": out.stat().st_size, **layers_document(compressed.report)}
    )


def show_choices(output: Output, choices: Sequence[Choice]) -> list[dict[str, Any]]:
    """Print what was tried for each weight, what was taken and why, and return the same as a document."""
    rows = [
        (
            choice.name,
            "float32" if choice.taken is None else _named(choice.taken),
            ", ".join(f"{trial.delta_norm:.3g} at {_named(trial)}" for trial in choice.trials),
        )
        for choice in choices
    ]
    title = "--layers auto: the first format in which ||dW||_2 is at most 1, else float32"
    output.table(title, ("weight", "taken", "because ||dW||_2 is"), rows)
    return [
        {**asdict(choice), "taken": None if choice.taken is None else asdict(choice.taken)}
        for choice in choices
    ]


def _named(trial: Trial) -> str:
    return f"{trial.bits} bits" if trial.domain == "decoded" else f"{trial.bits} bits {trial.domain}"


def check_suffix(out: Path) -> None:
    """Refuse an output that is neither an artifact nor an ONNX file, before any work is done."""
    if out.suffix not in (".mq", ".onnx"):
        raise muquant.InputError(
            f"cannot tell what {out} should be; expected a name that ends in .mq or .onnx"
        )
