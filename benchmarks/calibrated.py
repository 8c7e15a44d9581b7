"""What a few samples do for accuracy at few bits: all layers, no training, no labels.

    MUQUANT_DATA=... python benchmarks/calibrated.py mnist=runs/mnist cifar10-jpeg=runs/cifar10

The run folders come from

    muquant train --data mnist --precision bf16 --out runs/mnist
    muquant train --data folder:data/cifar10 --model wrn-16-2 --epochs 15 --precision bf16 --out runs/cifar10

the second from JPEG images, a folder for each class. 512 training images calibrate, for the default drawn
anew for each of three seeds. Writes `results/calibrated.json`; the exit status is 1 where the default at 3
bits loses more accuracy on the test images than it may, the mean over the seeds.
"""

import argparse
import sys
import time
from dataclasses import asdict
from statistics import mean
from typing import Any

import torch
from provenance import write_results
from torch import nn

import muquant
from muquant.data import Dataset, load_dataset
from muquant.models.evaluation import evaluate
from muquant.training import load_run, read_run

SEED = 0
SEEDS = 3
SAMPLES = 512
WIDTHS = (3, 2)
POINTS = {"mnist": 0.1, "cifar10-jpeg": 0.5}
"""Network -> the most percentage points of accuracy that the default may cost at 3 bits."""
WAYS: dict[str, dict[str, Any]] = {
    "weights only": {},
    "nearest, corrected": {"rounding": "nearest"},
    "compensated, not corrected": {"rounding": "compensated", "corrections": False},
    "compensated": {"rounding": "compensated"},
    "reconstructed, not corrected": {"corrections": False},
    "default": {},
}
"""Name -> options of `compress`; all but the first have samples."""


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN", help="run folders")
    runs = dict(text.split("=", 1) for text in parser.parse_args().runs)
    results = {name: measure(run) for name, run in runs.items()}
    missed = [
        f"{name}: {-lost:.2f} points, at most {POINTS[name]} are asked for"
        for name in results
        if (lost := results[name]["3 bits"]["default"]["points"]) < -POINTS.get(name, 100.0)
    ]
    document = {"samples": SAMPLES, "seeds": SEEDS, "targets": POINTS, "missed": missed, "results": results}
    print(*missed, f"wrote {write_results('calibrated', SEED, document)}", sep="\n")
    return int(bool(missed))


def measure(run: str) -> dict[str, Any]:
    """One network, float and in all ways at all widths."""
    record, model = read_run(run), load_run(run)
    train, test = (load_dataset(record.config.data, split) for split in ("train", "test"))
    accuracy = evaluate(model, test)
    print(f"{run}: float {accuracy:.2%} of {len(test):,} test images")
    found: dict[str, Any] = {
        "model": record.config.model,
        "data": record.config.data,
        "test_images": len(test),
        "float": accuracy,
    }
    for bits in WIDTHS:
        rows = {way: attempts(way, bits, model, train, test, accuracy) for way in WAYS}
        found[f"{bits} bits"] = rows
        for way, row in rows.items():
            print(f"  {bits} bits, {way:28} {row['points']:+.2f} points, {row['seconds']:.0f} s", flush=True)
    return found


def attempts(
    way: str, bits: int, model: nn.Module, train: Dataset, test: Dataset, accuracy: float
) -> dict[str, Any]:
    """One way at one width; the default for each seed."""
    calibrated = way != "weights only"
    accuracies, seconds, compressed = [], [], None
    for seed in range(SEEDS if way == "default" else 1):
        drawn = torch.randperm(len(train), generator=torch.Generator().manual_seed(seed))[:SAMPLES]
        options = {**WAYS[way], "calibration": train.inputs(drawn)} if calibrated else {}
        start = time.perf_counter()
        compressed = muquant.compress(model, muquant.MuLawSpec(bits=bits), flat=True, **options)
        seconds.append(time.perf_counter() - start)
        accuracies.append(evaluate(compressed.module, test))
    assert compressed is not None
    weights = sum(tensor.codes.numel() for tensor in compressed.tensors.values())
    norms = compressed.batch_norm
    return {
        "accuracy": accuracies,
        "points": 100 * (mean(accuracies) - accuracy),
        "seconds": mean(seconds),
        "bits_per_weight": 8 * sum(layer.nbytes for layer in compressed.report) / weights,
        "layers_of_the_last_seed": [
            {
                "name": layer.name,
                "rounding": layer.rounding,
                "bias_corrected": layer.bias_corrected,
                "nearest_output_sqnr": layer.nearest_output_sqnr,
                "output_sqnr": layer.output_sqnr,
            }
            for layer in compressed.report
        ],
        "batch_norm_of_the_last_seed": None if norms is None else asdict(norms),
    }


if __name__ == "__main__":
    sys.exit(main())
