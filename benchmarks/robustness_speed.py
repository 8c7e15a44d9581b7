"""How long `muquant bench --suite standard` takes on 1,000 MNIST images, in PyTorch and under onnxruntime.

    MUQUANT_DATA=... python benchmarks/robustness_speed.py ordinary=runs/mnist robust=runs/robust-3bit/float

Each run folder is attacked by as many processes as there are cores, or with `--ways threads` by one process
of as many threads. Writes `results/robustness_speed.json`: seconds, worst case, verdict. The exit status is 1
where one takes longer than it may.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from provenance import write_results
from torchrun import CORES, ONE_THREAD, torchrun

LIMIT = 1000
WAYS = {
    "threads": ((sys.executable, "-m", "muquant_cli"), {"OMP_NUM_THREADS": str(CORES)}),
    "processes": ((*torchrun(), "-m", "muquant_cli"), ONE_THREAD),
}
MINUTES = {"ordinary": 4.0, "robust": 15.0}
"""Result -> the longest time, on two cores."""


def main() -> int:
    """Measure, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="NAME=RUN", help="run folders, by the name of the result")
    parser.add_argument("--ways", nargs="+", choices=list(WAYS), default=["processes"])
    options = parser.parse_args()
    results = {
        name: {way: measure(run, way) for way in options.ways}
        for name, run in (text.split("=", 1) for text in options.runs)
    }
    slow = [
        f"{name} with {way}: {result['seconds'] / 60:.1f} minutes, may take {MINUTES[name]:g}"
        for name, ways in results.items()
        for way, result in ways.items()
        if name in MINUTES and result["seconds"] > 60 * MINUTES[name]
    ]
    document = {"count": LIMIT, "suite": "standard", "cores": CORES, "results": results}
    document |= {"minutes_allowed": MINUTES, "too_slow": slow}
    print(f"wrote {write_results('robustness_speed', 0, document)}", *slow, sep="\n")
    return int(bool(slow))


def measure(run: str, way: str) -> dict[str, Any]:
    """Run the benchmark once, in an empty folder."""
    command, environment = WAYS[way]
    with tempfile.TemporaryDirectory() as folder:
        arguments = ["bench", f"model={run}", "--data", "mnist", "--limit", str(LIMIT), "--out", folder]
        start = time.perf_counter()
        done = subprocess.run(
            [*command, *arguments, "--json"],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            check=True,
        )
        seconds = time.perf_counter() - start
    models = json.loads(done.stdout.splitlines()[-1])["models"]
    print(f"{run} with {way}: {seconds:.0f} s")
    return {
        "seconds": seconds,
        "load_average": os.getloadavg()[1],
        "models": [
            {
                **{
                    key: model[key]
                    for key in ("runtime", "clean", "worst_case", "verdict", "seconds", "flags")
                },
                "attacks": {
                    name: {key: attack[key] for key in ("accuracy", "seconds", "queries", "source")}
                    for name, attack in model["attacks"].items()
                },
            }
            for model in models
        ],
    }


if __name__ == "__main__":
    sys.exit(main())
