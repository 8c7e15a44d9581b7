"""What it costs to load and to run a file, measured in processes of their own."""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muquant.base.errors import InputError

BATCHES = 1, 32
"""Inputs at a time whose latency is measured."""


@dataclass(frozen=True)
class LoadCost:
    """What a file costs in a process of its own: medians; bytes of memory are those that a session adds.

    Attributes:
        nbytes: size of the file.
        seconds: to open the session.
        peak: bytes of memory while loading, at the highest.
        loaded: bytes of memory behind loading.
        settled: bytes of memory after five runs of one input.
        latency: seconds of a run by the number of inputs, of `BATCHES`; without those that the model refuses.
    """

    nbytes: int
    seconds: float
    peak: int
    loaded: int
    settled: int
    latency: dict[int, float]


# Nothing is imported that loading does not need. The peak is the kernel's own high-water mark, reset before
# loading; where the system keeps none, the memory after loading stands in. What every session of onnxruntime
# shares is made before, by an empty one.
_PROBE = """
import json, pathlib, re, sys, time
import numpy, psutil
from muquant_onnx import load_session
from muquant_onnx.verification.costs import empty_session
path, policy, feeds = json.loads(sys.argv[1])
feeds = [dict(numpy.load(feed)) for feed in feeds]
status, clear = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")
def resident(): return psutil.Process().memory_info().rss
empty_session()
try: clear.write_text("5")
except OSError: pass
before, start = resident(), time.perf_counter()
session = load_session(path, policy=policy)
seconds, loaded = time.perf_counter() - start, resident()
mark = re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text()) if status.exists() else None
peak = max(loaded, int(mark[1]) * 1024 if mark else 0)
settled, latency = loaded, {}
for number, feed in enumerate(feeds):
    times = []
    try:
        while len(times) < 5 or (len(times) < 50 and sum(times) < 0.5):
            begin = time.perf_counter()
            session.run(None, feed)
            times.append(time.perf_counter() - begin)
    except Exception: continue
    latency[number] = sorted(times)[len(times) // 2]
    if number == 0: settled = resident()
print(json.dumps([seconds, peak - before, loaded - before, settled - before, latency]))
"""


def empty_session() -> None:
    """Open and run a session that does nothing."""
    import onnxruntime as ort
    from onnx import helper, parser

    graph = parser.parse_graph("empty (float[1] x) => (float[1] y) { y = Identity (x) }")
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    session.run(None, {"x": np.zeros(1, np.float32)})


def load_cost(
    path: str | os.PathLike[str],
    feed: Mapping[str, NDArray[Any]],
    policy: str | None = None,
    repetitions: int = 3,
) -> LoadCost:
    """Measure what loading and running `path` costs, each time in a fresh process.

    Args:
        path: of the file.
        feed: inputs by name; the first is run alone, and all of them, again and again, as larger batches.
        policy: see `load_session`.
        repetitions: how many processes.

    Raises:
        InputError: onnxruntime cannot load the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        feeds = [Path(folder, f"{count}.npz") for count in BATCHES]
        for count, file in zip(BATCHES, feeds, strict=True):
            taken = {name: np.resize(value, (count, *value.shape[1:])) for name, value in feed.items()}
            np.savez(file, allow_pickle=False, **taken)
        request = json.dumps([os.fspath(path), policy, [str(file) for file in feeds]])
        runs = [_probe(path, request) for _ in range(repetitions)]
    seconds, peak, loaded, settled = (
        sorted(column)[len(runs) // 2] for column in zip(*(run[:4] for run in runs), strict=True)
    )
    latency = {
        count: sorted(run[4][str(number)] for run in runs)[len(runs) // 2]
        for number, count in enumerate(BATCHES)
        if all(str(number) in run[4] for run in runs)
    }
    return LoadCost(Path(path).stat().st_size, seconds, peak, loaded, settled, latency)


def _probe(path: str | os.PathLike[str], request: str) -> list[Any]:
    command = [sys.executable, "-c", _PROBE, request]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        last = (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
        raise InputError(f"onnxruntime cannot load {path}: {last}")
    result: list[Any] = json.loads(done.stdout)
    return result
