"""`muquant inspect`."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import click

from muquant.base.errors import InputError
from muquant.base.files import check_writable
from muquant.compression.artifact import read_artifact
from muquant.compression.left import left_in_state
from muquant.compression.pictures import plot_weights
from muquant.compression.weight_bytes import WeightBytes
from muquant.training import read_run
from muquant_cli.options.common import root_option
from muquant_cli.output import Output, command
from muquant_cli.sources.run_folder import float_model
from muquant_cli.tables import (
    layer_rows,
    layers_document,
    show_layers,
    show_left_alone,
    show_norms,
    show_weight_bytes,
)
from muquant_onnx import running_operators
from muquant_onnx.serving.read import read_consistent


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option(
    "--plot", type=click.Path(path_type=Path), help="Picture of the levels to draw, for a .mq file."
)
@click.option(
    "--amplification",
    type=click.Path(path_type=Path),
    help="Picture to draw of how errors grow from layer to layer, for a .mq file; needs --run and --data.",
)
@click.option(
    "--run", type=click.Path(path_type=Path), help="Run folder with the float weights, for the pictures."
)
@click.option("--data", help="Data set whose test images are perturbed.")
@click.option("--attack", default="pgd", help="How: an attack on the float model, or uniform-noise.")
@click.option("--epsilon", metavar="NUMBER", help='How far, such as 0.3 or "8/255".  [default: by data set]')
@click.option("--limit", type=click.IntRange(min=1), default=200, help="The first so many test images.")
@root_option
@command
def inspect(
    output: Output,
    file: Path,
    plot: Path | None,
    amplification: Path | None,
    run: Path | None,
    data: str | None,
    **options: Any,
) -> None:
    """Show what is in FILE, layer by layer: a .mq or .onnx file, or a run folder."""
    for name, picture in (("--plot", plot), ("--amplification", amplification)):
        if picture is not None and file.suffix != ".mq":
            raise InputError(f"{name} draws .mq files, found {file}; name one")
        if picture is not None:
            check_writable(picture)
    if (data is None) != (amplification is None) or (amplification is not None and run is None):
        raise InputError("--amplification PICTURE goes with --run RUN, which was compressed, and --data DATA")
    if file.is_dir():
        _inspect_run(output, file)
    elif file.suffix == ".onnx":
        _inspect_onnx(output, file)
    elif file.suffix == ".mq":
        _inspect_artifact(output, file, plot, amplification, run, data=data, **options)
    else:
        raise InputError(f"cannot tell what {file} is; expected a .mq or .onnx file, or a run folder")


def _inspect_artifact(
    output: Output,
    file: Path,
    plot: Path | None,
    amplification: Path | None,
    run: Path | None,
    **options: Any,
) -> None:
    artifact = read_artifact(file)
    document: dict[str, Any] = {
        "path": str(file),
        "nbytes": file.stat().st_size,
        "source": artifact.source,
        **layers_document(artifact.report),
    }
    if plot is not None:
        originals = None if run is None else dict(float_model(run).named_parameters())
        plot_weights(artifact.tensors, plot, originals)
        output.say(f"Drew {plot}")
    if amplification is not None and run is not None:
        # imported here: the usual epsilons bring muquant.robustness along, which takes a second or two
        from muquant_cli.steps.amplification import Perturbation, run_amplification, show_amplification

        perturbation = Perturbation(**options)
        found = run_amplification(output, file, run, perturbation, amplification)
    title = str(file) if artifact.source is None else f"{file}, made from {artifact.source}"
    show_layers(output, title, layer_rows(artifact.report))
    show_norms(output, artifact.report)
    if amplification is not None:
        document["amplification"] = show_amplification(output, found, perturbation)
    left = left_in_state(artifact.state)
    packed = ((layer.float_nbytes, layer.nbytes) for layer in artifact.report)
    document |= show_left_alone(output, left)
    document |= show_weight_bytes(output, WeightBytes.of(packed, (each.nbytes for each in left)))
    output.result(document)


def _inspect_run(output: Output, folder: Path) -> None:
    run = read_run(folder)
    document = {
        "path": str(folder),
        "config": asdict(run.config),
        "architecture": run.architecture.to_dict(),
        "test_accuracy": run.test_accuracy,
        "history": [asdict(epoch) for epoch in run.history],
    }
    rows = [
        (
            epoch.epoch,
            f"{epoch.train_loss:.4f}",
            f"{epoch.train_accuracy:.2%}",
            "-" if epoch.validation_accuracy is None else f"{epoch.validation_accuracy:.2%}",
            f"{epoch.seconds:.0f} s",
        )
        for epoch in run.history
    ]
    title = f"{folder}: {run.config.model} on {run.config.data}, {run.test_accuracy:.2%} on the test set"
    output.table(title, ("epoch", "training loss", "training", "validation", "time"), rows)
    output.result(document)


def _inspect_onnx(output: Output, file: Path) -> None:
    metadata = read_consistent(file).metadata
    rows = [
        (
            name,
            "x".join(map(str, entry["shape"])),
            entry["bits"],
            f"{entry['mu']:.3g}",
            entry["granularity"],
            entry["domain"],
            ", ".join(entry["served"]),
        )
        for name, entry in metadata["weights"].items()
    ]
    title = f"{file}: {metadata['producer']}, policy {metadata['policy']}, {file.stat().st_size:,} bytes"
    output.table(title, ("weight", "shape", "bits", "mu", "granularity", "domain", "served as"), rows)
    operators = running_operators(file)
    output.say("onnxruntime runs: " + ", ".join(f"{count} {name}" for name, count in operators.items()))
    output.result({"path": str(file), "nbytes": file.stat().st_size, **metadata, "operators": operators})
