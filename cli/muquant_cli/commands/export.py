"""`muquant export`."""

from pathlib import Path

import click

from muquant.base.files import check_writable
from muquant_cli.card import check_card, of_export, write_card
from muquant_cli.options.common import (
    card_option,
    dynamic_option,
    module_option,
    out_option,
    parse_dynamic,
    target_options,
)
from muquant_cli.output import Output, command
from muquant_cli.sources.artifacts import open_artifact
from muquant_cli.tables import report_export, show_left_alone, show_weight_bytes
from muquant_onnx.from_torch.export import export_for
from muquant_onnx.lowering.targets import Target


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@out_option("model.onnx")
@module_option
@target_options
@dynamic_option
@card_option
@command
def export(
    output: Output,
    model: Path,
    out: Path,
    module: str | None,
    target: Target,
    dynamic: tuple[str, ...],
    card: bool,
) -> None:
    """Write MODEL, a .mq file, as an ONNX file that stock onnxruntime runs."""
    shapes = parse_dynamic(dynamic)
    check_writable(out)
    check_card(out, card)
    compressed, source = open_artifact(model, module)
    report = export_for(compressed, out, source.require_example(), target, shapes)
    document = report_export(output, report) | show_left_alone(output, compressed.left_alone)
    document |= show_weight_bytes(output, compressed.weight_bytes)
    if card:
        document |= write_card(output, out, {"export": of_export(report)})
    output.result(document)
