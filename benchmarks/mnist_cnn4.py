"""From a trained cnn4 on MNIST to a 3-bit ONNX file, with every figure that the README quotes.

    MUQUANT_DATA=... python benchmarks/mnist_cnn4.py [--run runs/mnist-cnn4]

Trains cnn4 as `muquant train --precision bf16` does where the run folder is empty (about 15 minutes on two
cores; an interrupted run goes on), compresses all layers to 3 bits without retraining or data, exports each
policy, verifies each file on the whole test set, and times onnxruntime at batch 1, interleaved with the float
file. Writes `results/mnist_cnn4.json` and a picture of the levels beside it.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
import timeit
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from provenance import RESULTS, write_results

import muquant
from muquant.compression.pictures import plot_weights
from muquant.data import load_dataset
from muquant.models.evaluation import evaluate
from muquant.training import TrainingConfig, train
from muquant_onnx import export_float, export_onnx, load_session, verify

POLICIES = ("float", "int8", "auto")
REPETITIONS, RUNS_EACH = 41, 30


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/mnist-cnn4"), help="run folder")
    parser.add_argument("--download", action="store_true", help="fetch MNIST where it is missing")
    options = parser.parse_args()

    config = TrainingConfig(data="mnist", model="cnn4", precision="bf16")
    start = time.perf_counter()
    model = train(config, options.run, resume=True, download=options.download).model.eval()
    print(f"trained, or found trained, in {time.perf_counter() - start:.0f} s")
    test = load_dataset("mnist", "test")
    document: dict[str, Any] = {"config": asdict(config), "count": len(test)}

    start = time.perf_counter()
    compressed = muquant.compress(model, flat=True)
    document["seconds_to_compress"] = time.perf_counter() - start
    source = muquant.compress(model, muquant.SOURCE_SPEC, observer="absmax", flat=True)
    document["accuracy"] = {
        "float": evaluate(model, test),
        "muquant, 3 bits, all layers": evaluate(compressed.module, test),
        "the paper's quantizer (3 bits, uniform, per tensor), all layers": evaluate(source.module, test),
    }
    for name, accuracy in document["accuracy"].items():
        print(f"{accuracy:8.2%}  {name}")
    document["layers"] = [asdict(layer) for layer in compressed.report]

    plot_weights(compressed.tensors, RESULTS / "mnist_cnn4.png", dict(model.named_parameters()))

    with tempfile.TemporaryDirectory() as folder:
        example = test.inputs()[:2]
        plain = Path(folder, "float32.onnx")
        float_bytes = export_float(model, plain, example)
        document["float_nbytes"] = float_bytes
        document["policies"] = {}
        for policy in POLICIES:
            path = Path(folder, f"{policy}.onnx")
            nbytes = export_onnx(compressed, path, example, policy).nbytes
            report = verify(compressed, path, test.inputs())
            document["policies"][policy] = {
                "nbytes": nbytes,
                "float_over_file": float_bytes / nbytes,
                "weights_bit_exact": all(check.passed for check in report.weights),
                "accuracy_under_onnxruntime": onnx_accuracy(path, test.inputs().numpy(), test.labels.numpy()),
                "verify": {"passed": report.passed, **asdict(report)},
            }
            print(
                f"{policy:6} 1/{float_bytes / nbytes:.2f} of the float file, verify "
                f"{'PASS' if report.passed else 'FAIL'}, "
                + ", ".join(f"{c.setting} {c.difference:.1e} {c.agreement:.2%}" for c in report.runtimes)
            )
        document["latency_batch_1"] = latency(
            {"float file": plain, **{policy: Path(folder, f"{policy}.onnx") for policy in POLICIES}},
            test.inputs()[:1].numpy(),
        )
        start = time.perf_counter()
        demo = [sys.executable, "-m", "muquant_cli", "demo", "--json", "--out", str(Path(folder, "demo"))]
        done = subprocess.run(demo, check=True, capture_output=True)
        document["demo"] = {
            "seconds": time.perf_counter() - start,
            "accuracy": json.loads(done.stdout)["accuracy"],
        }
    print(f"the demo took {document['demo']['seconds']:.0f} s")
    for name, figures in document["latency_batch_1"].items():
        print(
            f"{name:10} {figures['median_ms']:.3f} ms, {figures['ratio_to_float_file']:.3f} of the float file"
        )
    print(f"wrote {write_results('mnist_cnn4', config.seed, document)}")


def onnx_accuracy(path: Path, images: np.ndarray[Any, Any], labels: np.ndarray[Any, Any]) -> float:
    """Return the accuracy of a file under onnxruntime's default settings."""
    session = load_session(path)
    name = session.get_inputs()[0].name
    correct = 0
    for start in range(0, len(images), 500):
        logits = session.run(None, {name: images[start : start + 500]})[0]
        correct += int((logits.argmax(1) == labels[start : start + 500]).sum())
    return correct / len(images)


def latency(paths: dict[str, Path], image: np.ndarray[Any, Any]) -> dict[str, dict[str, float]]:
    """Time one image under each file in turn, again and again; a ratio is the median over the turns."""
    sessions: dict[str, ort.InferenceSession] = {name: load_session(path) for name, path in paths.items()}
    feeds = {name: {session.get_inputs()[0].name: image} for name, session in sessions.items()}
    times: dict[str, list[float]] = {name: [] for name in paths}
    for turn in range(REPETITIONS + 1):
        for name, session in sessions.items():
            seconds = timeit.timeit(partial(session.run, None, feeds[name]), number=RUNS_EACH)
            if turn:  # the first warms up
                times[name].append(seconds / RUNS_EACH * 1e3)
    reference = np.array(next(iter(times.values())))
    return {
        name: {
            "median_ms": float(np.median(values)),
            "minimum_ms": float(np.min(values)),
            "ratio_to_float_file": float(np.median(np.array(values) / reference)),
        }
        for name, values in times.items()
    }


if __name__ == "__main__":
    main()
