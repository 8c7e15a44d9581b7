"""`muquant compress`."""

import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
from torch import nn

import muquant
from muquant.base.files import check_writable
from muquant.compression.answers.modules import ask_module, check_module
from muquant.compression.auto import Choice, TriedFormat
from muquant.compression.batch_norm import Reestimation
from muquant.compression.calibration import read_samples
from muquant.compression.options import CompressionOptions
from muquant.compression.pipeline import compress_module
from muquant.compression.planning import plan_module
from muquant.data import DATASETS
from muquant.format.spec import Domain, Grid, Levels
from muquant.quantization.outcome import finite
from muquant_cli.card import check_card, of_compression, of_export, write_card
from muquant_cli.options.answers import Wanted, answers_options
from muquant_cli.options.budget import Budget, budget_options, keep_plan
from muquant_cli.options.calibration import (
    calibration_options,
    finished_weights,
    read_calibration,
    warn_without_samples,
)
from muquant_cli.options.common import (
    card_option,
    dynamic_option,
    out_option,
    parse_dynamic,
    root_option,
    target_options,
)
from muquant_cli.options.format import format_options, parse_bits, parse_mu
from muquant_cli.output import FAILED, Output, command
from muquant_cli.sources import Source, read_source
from muquant_cli.sources.factory import call_factory, is_factory
from muquant_cli.steps.graphs import GRAPHS, compress_graph
from muquant_cli.tables import (
    layer_rows,
    layers_document,
    report_export,
    show_average_bits,
    show_exceptions,
    show_layers,
    show_left_alone,
    show_weight_bytes,
)
from muquant_onnx.from_torch.asked import DynamicShapes
from muquant_onnx.from_torch.export import export_for
from muquant_onnx.lowering.targets import Target


@click.command()
@click.argument("source")
@out_option("model.mq, or model.onnx to export at once")
@click.option(
    "--state",
    metavar="none|FILE",
    help="Weights to take: those in a safetensors file, or none, the model's own before any are loaded.",
)
@format_options
@budget_options
@calibration_options
@answers_options
@root_option
@target_options
@dynamic_option
@card_option
@command
def compress(
    output: Output,
    source: str,
    out: Path,
    state: str | None,
    bits: str,
    flat: bool,
    mu: str,
    domain: Domain,
    granularity: str,
    step_bits: str,
    levels: Levels,
    grid: Grid,
    layers: str,
    rounding: str | None,
    max_seconds: float | None,
    observer: str,
    max_bytes: str | None,
    max_drop: float | None,
    plan: Path | None,
    calibration: str | None,
    samples: int,
    synthetic: bool,
    corrections: bool,
    resume: bool,
    root: Path | None,
    target: Target,
    dynamic: tuple[str, ...],
    card: bool,
    **asked: Any,
) -> None:
    """Compress the weights of SOURCE to few bits.

    \b
    SOURCE is one of
      runs/mnist          a run folder; after `train --qat` as it was trained
      torchvision:NAME    a model of torchvision, with its pretrained weights
      timm:NAME           a model of timm, if that is installed
      robustbench:NAME    a model of RobustBench's list, if that is installed,
                          with your checkpoint models/DATASET/THREAT/NAME.pt
      pkg.module:factory  a function that returns a torch.nn.Module, or
                          (module, example), and that is run
      model.onnx          an ONNX file from anywhere
      model.pt2           what torch.export.save wrote; can run code as well
    """
    check_suffix(out)
    check_writable(out)
    check_card(out, card)
    shapes = parse_dynamic(dynamic)
    if shapes and (out.suffix != ".onnx" or Path(source).suffix in GRAPHS):
        raise muquant.InputError(
            f"--dynamic is for a model that is exported; expected a model of layers and an output that ends "
            f"in .onnx, found {source} and {out}; leave the option out, a graph's axes stay as they are"
        )
    wanted = Wanted.read(**asked)
    budget = Budget.read(max_bytes, max_drop, plan, bits, layers)
    width, overrides = parse_bits(bits)
    options = CompressionOptions(
        spec=muquant.MuLawSpec(width, parse_mu(mu), domain, granularity, levels, grid, int(step_bits)),  # type: ignore[arg-type]
        flat=flat,
        layers=layers,
        overrides=overrides,
        observer=observer,
        synthetic=synthetic,
        corrections=corrections,
    )

    def with_samples(preprocess: nn.Module | None = None) -> CompressionOptions:
        if calibration is None:
            return replace(
                options, rounding=rounding, max_seconds=max_seconds
            )  # a weight takes less time than to keep it
        if is_factory(calibration) and calibration.partition(":")[0] not in DATASETS:
            given = read_samples(call_factory(calibration, "samples"), samples)
        else:
            given = read_calibration(calibration, samples, root, preprocess)
        return replace(
            options, rounding=rounding, max_seconds=max_seconds, calibration=given, finished=finished
        )

    with finished_weights(output, out, resume) as finished:
        path = Path(source)
        if path.suffix in GRAPHS:
            document, answers = compress_graph(
                output, path, out, state, with_samples(), budget, wanted, target, card=card
            )
        else:
            read = read_source(source, state=state, others=[f"a {suffix} file" for suffix in GRAPHS])
            document, answers = _compress_module(
                output, read, out, with_samples(read.preprocess), budget, wanted, target, shapes, card=card
            )
    output.result(document)
    missed = wanted.missed(answers)
    if missed:
        output.complain(f"{out} is written, but does not answer as it has to: {missed}")
        sys.exit(FAILED)


def _compress_module(
    output: Output,
    source: Source,
    out: Path,
    options: CompressionOptions,
    budget: Budget,
    wanted: Wanted,
    target: Target,
    shapes: DynamicShapes | None,
    *,
    card: bool,
) -> tuple[dict[str, Any], muquant.AnswersCheck | None]:
    """Compress a model, write it as `out` says, and its card, say how it went, and return that as a document,
    and what the check of the answers found."""
    exported = out.suffix == ".onnx"
    if exported:
        source.require_example()  # before any work is done
    trained = any(isinstance(part, muquant.MuLawFakeQuantize) for part in source.module.modules())
    options, plan = budget.follow(
        output, out, options, partial(plan_module, source.module, example=source.example)
    )
    if trained and options.spec == muquant.MuLawSpec():
        options = replace(options, spec=None)  # nothing was asked for, and training fixed it
    exact = ask_module(source.module, options, source.example) if wanted.check else None
    with output.progress("Compressing") as update:
        compressed = compress_module(
            source.module,
            options,
            shown=source.example,
            on_layer=lambda name, index, count: update(index, count, name),
        )
    answers = None if exact is None else check_module(compressed.module, exact)
    report = None
    if exported:
        report = export_for(compressed, out, source.require_example(), target, shapes)
    else:
        replace(compressed, source=source.text).save(out)
    widths = sorted({layer.bits for layer in compressed.report})
    bits = " to ".join(map(str, dict.fromkeys((widths[0], widths[-1]))))
    what = f"{source.text} as it was trained" if trained else f"{source.text} at {bits} bits"
    show_layers(output, what, layer_rows(compressed.report))
    document: dict[str, Any] = show_average_bits(output, compressed.average_bits)
    if not trained:
        warn_without_samples(output, options)
    show_exceptions(output, compressed.report)
    if compressed.choices:
        document["choices"] = show_choices(output, compressed.choices)
    if compressed.batch_norm is not None:
        document["batch_norm"] = _show_batch_norm(output, compressed.batch_norm)
    if compressed.tuning is not None:
        document["tuning"] = asdict(compressed.tuning)
        output.say(compressed.tuning.words)
    if report is not None:
        document.update(report_export(output, report))
    else:
        output.say(f"Wrote {out}: {out.stat().st_size:,} bytes")
    if plan is not None:
        document.update(keep_plan(output, plan, out, out.stat().st_size))
    document |= {"path": str(out), "nbytes": out.stat().st_size, **layers_document(compressed.report)}
    document |= show_left_alone(output, compressed.left_alone) | wanted.show(output, answers)
    document |= show_weight_bytes(output, compressed.weight_bytes)
    if card:
        sections = {"compress": of_compression(source.text, out, compressed, answers)}
        document |= write_card(
            output, out, sections if report is None else {**sections, "export": of_export(report)}
        )
    return document, answers


def _show_batch_norm(output: Output, result: Reestimation) -> dict[str, Any]:
    what = "follow the compressed activations" if result.taken else "stay as they were trained"
    output.say(
        f"BatchNorm statistics {what}: on held-out samples the output's SQNR is {result.before:.2f} dB "
        f"with those of training, {result.after:.2f} dB with re-estimated ones"
    )
    return {
        **asdict(result),
        "before": finite(result.before),
        "after": finite(result.after),
        "taken": result.taken,
    }


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


def _named(trial: TriedFormat) -> str:
    return f"{trial.bits} bits" if trial.domain == "decoded" else f"{trial.bits} bits {trial.domain}"


def check_suffix(out: Path) -> None:
    """Refuse an output that is neither an artifact nor an ONNX file, before any work is done."""
    if out.suffix not in (".mq", ".onnx"):
        raise muquant.InputError(
            f"cannot tell what {out} should be; expected a name that ends in .mq or .onnx"
        )
