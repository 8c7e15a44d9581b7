"""`muquant demo`."""

import sys
from pathlib import Path

import click
import torch

import muquant
from muquant.compression.pictures import plot_weights
from muquant.data import load_dataset
from muquant.models.evaluation import evaluate
from muquant.robustness import BenchmarkSetup, settings_for
from muquant.training import TrainingConfig
from muquant_cli.output import FAILED, Output, command
from muquant_cli.sources.candidates import read_candidates
from muquant_cli.steps.benchmark import run_bench
from muquant_cli.steps.training import run_training
from muquant_cli.steps.verification import run_verify, verify_document
from muquant_cli.tables import (
    layer_rows,
    layers_document,
    report_export,
    show_layers,
    show_left_alone,
    show_weight_bytes,
)
from muquant_onnx import export_float, export_onnx

DEMO_CONFIG = TrainingConfig(
    data="digits", model="cnn4-small", epochs=30, batch_size=32, lr=5e-3, augment="none"
)

DEMO_EPSILON, DEMO_ATTACKED = 0.1, 200
"""An Linf radius at which a network that was never trained for it is right now and then."""


@click.command()
@click.option("-o", "--out", default="demo", type=click.Path(path_type=Path), help="Folder to write.")
@command
def demo(output: Output, out: Path) -> None:
    """Train, compress, export, verify and attack a small model on handwritten digits; a minute or two."""
    torch.set_num_threads(1)  # the model is so small that a second thread only waits
    trained = run_training(output, DEMO_CONFIG, out / "run", resume=True).model.eval()
    test = load_dataset(DEMO_CONFIG.data, "test")
    example = test.inputs()[:2]

    compressed = muquant.compress(trained, example=test.inputs())
    compressed.save(out / "model.mq")
    plot_weights(compressed.tensors, out / "weights.png", dict(trained.named_parameters()))
    show_layers(output, f"Compressed: {out / 'model.mq'}", layer_rows(compressed.report))
    exported = report_export(output, export_onnx(compressed, out / "model.onnx", example))
    left_alone = show_left_alone(output, compressed.left_alone)
    if compressed.answers is not None:
        output.say(compressed.answers.words)
    weight_bytes = show_weight_bytes(output, compressed.weight_bytes)
    float_bytes = export_float(trained, out / "float.onnx", example)
    report = run_verify(output, compressed, out / "model.onnx", test.inputs(), "the digits test set")

    source = muquant.compress(trained, muquant.SOURCE_SPEC, observer="absmax", check=False)
    rows = {
        "float32": (evaluate(trained, test), float_bytes),
        "muquant, 3 bits": (evaluate(compressed.module, test), exported["nbytes"]),
        "plain 3 bits: uniform, per tensor": (evaluate(source.module, test), None),
    }
    output.table(
        f"Accuracy on {len(test)} test images",
        ("weights", "accuracy", "ONNX file, bytes"),
        [
            (name, f"{accuracy:.2%}", "-" if size is None else f"{size:,}")
            for name, (accuracy, size) in rows.items()
        ],
    )
    models = read_candidates([f"float={out / 'run'}", f"3 bits={out / 'model.mq'}", str(out / "model.onnx")])
    setup = BenchmarkSetup(
        "standard", settings_for(DEMO_CONFIG.data, DEMO_EPSILON), DEMO_ATTACKED, folder=out / "report/attacks"
    )
    attacked = run_bench(output, models, test, setup, out / "report")
    output.say(
        f"All files are in {out}; weights.png shows where the 8 levels of each layer lie, report/report.html "
        f"what attacks left"
    )
    output.result(
        {
            "folder": str(out),
            "accuracy": {name: accuracy for name, (accuracy, _) in rows.items()},
            "float_nbytes": float_bytes,
            "export": exported,
            "verify": verify_document(report),
            "bench": attacked.to_dict(),
            **layers_document(compressed.report),
            **left_alone,
            **weight_bytes,
        }
    )
    if not report.passed:
        sys.exit(FAILED)
