"""What is in a .mq file and in a run folder."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from muquant.compression.artifact import read_artifact
from muquant.compression.left import left_in_state
from muquant.compression.weight_bytes import WeightBytes
from muquant.training import read_run
from muquant_cli.output import Output
from muquant_cli.sources.run_folder import float_model
from muquant_cli.tables import (
    layer_rows,
    layers_document,
    show_layers,
    show_left_alone,
    show_norms,
    show_weight_bytes,
)


def inspect_artifact(
    output: Output,
    file: Path,
    plot: Path | None,
    amplification: Path | None,
    run: Path | None,
    **options: Any,
) -> None:
    """Show the layers of a .mq file, and draw the pictures that are asked for.

    Args:
        output: where to.
        file: the .mq file.
        plot: picture of the levels to draw.
        amplification: picture of how errors grow to draw; needs `run`.
        run: run folder with the float weights.
        **options: what the images are perturbed by, as `Perturbation` has it.
    """
    artifact = read_artifact(file)
    document: dict[str, Any] = {
        "path": str(file),
        "nbytes": file.stat().st_size,
        "source": artifact.source,
        **layers_document(artifact.report),
    }
    if plot is not None:
        from muquant.compression.pictures import plot_weights  # matplotlib takes half a second

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


def inspect_run(output: Output, folder: Path) -> None:
    """Show how a finished run was trained, epoch by epoch."""
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
