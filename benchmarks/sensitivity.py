"""How sensitive the layers of a trained network are to few bits, and what other widths cost and bring.

    MUQUANT_DATA=... python benchmarks/sensitivity.py [--run runs/mnist-cnn4]

Takes a finished run of `muquant train`. Norms of every layer's weight before and after compression and of the
error between them; file size, accuracy and error of the logits for uniform and mixed widths and for
`--layers auto`; which layers auto maps at the paper's five mu; and how errors grow from layer to layer, on
test images that PGD turned against the float network. Nothing is chosen by these figures. Writes
`results/sensitivity.json` and a picture beside it.
"""

import argparse
import tempfile
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from provenance import RESULTS, write_results
from torch import Tensor, nn

import muquant
from muquant.attacks import PGD, TorchTarget
from muquant.compression.amplification import measure_amplification
from muquant.compression.layers import quantizable_weights
from muquant.compression.pictures import plot_amplification
from muquant.compression.selection import Override
from muquant.compression.sensitivity import input_shapes, layer_norms
from muquant.data import Dataset, load_dataset
from muquant.models.evaluation import logits
from muquant.robustness import settings_for
from muquant.training import load_run, read_run
from muquant_onnx import export_onnx

WIDTHS: dict[str, tuple[int, Mapping[str, Override], str]] = {
    "2": (2, {}, "all"),
    "2, auto": (2, {}, "auto"),
    "3": (3, {}, "all"),
    "3,conv1=8": (3, {"conv1": 8}, "all"),
    "3,conv=8": (3, {"conv": 8}, "all"),
    "3,last:1=8": (3, {"last:1": 8}, "all"),
    "3, auto": (3, {}, "auto"),
    "4": (4, {}, "all"),
}
"""Name -> width, overrides, layers."""

MUS = (1.0, 5.0, 16.0, 64.0, 255.0)
ATTACKED = 500


def main() -> None:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=Path("runs/mnist-cnn4"), help="run folder")
    options = parser.parse_args()
    torch.set_num_threads(1)

    run, model = read_run(options.run), load_run(options.run)
    test = load_dataset(run.config.data, "test")
    reference = logits(model, test)
    document: dict[str, Any] = {"config": asdict(run.config), "count": len(test), "widths": {}}
    compressed = {}
    for name, (bits, overrides, layers) in WIDTHS.items():
        spec = muquant.MuLawSpec(bits)
        compressed[name] = muquant.compress(model, spec, layers=layers, overrides=overrides, flat=True)
        document["widths"][name] = figures = measure(compressed[name], test, reference)
        print(
            f"{name:12} {figures['nbytes']:9,} bytes, accuracy {figures['accuracy']:.2%}, "
            f"logits off by {figures['logit_error']:.2%}, bits {figures['bits']}"
        )
    document["float"] = {
        "accuracy": accuracy(reference, test),
        "nbytes": 4 * sum(weight.numel() for weight in model.parameters()),
    }
    document["norms"] = norms(model, compressed["3"])
    for layer in document["norms"]:
        figures = {name: layer[name]["layer"]["two"] for name in ("before", "after", "delta")}
        print(f"{layer['name']:16} ||.||_2 {figures}, of the matrix {layer['delta']['matrix']['two']:.3g}")
    document["mapped"] = {str(mu): mapped(model, mu) for mu in MUS}
    for mu, choices in document["mapped"].items():
        print(f"mu {mu:5}", {choice["name"]: round(choice["mapped_norm"], 3) for choice in choices})

    settings = settings_for(run.config.data)
    images, labels = test.inputs(slice(ATTACKED)), test.labels[:ATTACKED]
    attack = PGD(epsilon=settings.weak)
    result = attack.attack(TorchTarget(model), images, labels, seed=0)
    fooled = result.success
    document["amplification"] = {"attack": {"name": "pgd", **asdict(attack)}, "attacked": len(labels)}
    for name in ("3", "3,conv1=8"):
        found = measure_amplification(model, compressed[name], images[fooled], result.adversarial[fooled])
        document["amplification"][name] = asdict(found)
        last = found.layers[-1]
        print(f"{name:12} logits: {last.quantized.total:.2%} clean, {last.both.total:.2%} under PGD")
        if name == "3":
            plot_amplification(found, RESULTS / "sensitivity.png", f"pgd {settings.weak:.2g}")
    print(f"wrote {write_results('sensitivity', 0, document)}")


def measure(compressed: muquant.CompressedModel, test: Dataset, reference: Tensor) -> dict[str, Any]:
    """What a compressed model costs, and how far it is from the float one."""
    found = logits(compressed.module, test)
    with tempfile.TemporaryDirectory() as folder:
        nbytes = export_onnx(compressed, Path(folder, "model.onnx"), test.inputs(slice(2))).nbytes
    return {
        "bits": {entry.name: entry.bits for entry in compressed.report},
        "nbytes": nbytes,
        "accuracy": accuracy(found, test),
        "logit_error": float((found - reference).norm() / reference.norm()),
        "same_answer": float((found.argmax(1) == reference.argmax(1)).float().mean()),
    }


def accuracy(outputs: Tensor, test: Dataset) -> float:
    """Fraction of the images that are classified correctly."""
    return float((outputs.argmax(1) == test.labels).float().mean())


def norms(model: nn.Module, compressed: muquant.CompressedModel) -> list[dict[str, Any]]:
    """||.||_p of every weight before and after, and of the error, as a matrix and in its layer."""
    shapes = input_shapes(model)
    after = compressed.module.state_dict()
    rows = []
    for weight in quantizable_weights(model):
        values = {"before": weight.value.detach(), "after": after[weight.name]}
        values["delta"] = values["after"] - values["before"]
        row: dict[str, Any] = {"name": weight.name}
        start = time.process_time()
        for name, value in values.items():
            matrix, layer = layer_norms(weight.owners, value, shapes)
            assert layer is not None  # the model knows the size of its input
            row[name] = {"matrix": asdict(matrix), "layer": asdict(layer)}
        rows.append({**row, "processor_seconds_each": (time.process_time() - start) / len(values)})
    return rows


def mapped(model: nn.Module, mu: float) -> list[dict[str, Any]]:
    """What `--layers auto` makes of each weight in the mapped domain: ||F(W) - W||_2, and what was taken."""
    choices = muquant.compress(model, muquant.MuLawSpec(mu=mu, domain="mapped"), layers="auto").choices
    return [
        {
            "name": choice.name,
            "mapped_norm": choice.trials[0].delta_norm,
            "taken": None if choice.taken is None else asdict(choice.taken),
        }
        for choice in choices
    ]


if __name__ == "__main__":
    main()
