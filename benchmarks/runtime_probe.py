"""A process of its own that loads one file, runs it, and prints what that took, for `runtime_peers.py`.

What comes before the clock starts: imports, a session of an empty graph, and, where muquant loads the file, a
session of a tiny one by the same policy. Memory is counted above what the process has then. No torch, unless
muquant brings it.
"""

import functools
import gc
import importlib
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import psutil
from meter import Meter
from numpy.typing import NDArray

RUNS = 5
"""At batch 1, before memory counts as settled."""
AT_ONCE = 64
"""Inputs of a batch, where outputs are compared."""


def opener(policy: str | None, cache: str | None, threads: int) -> Callable[[str], ort.InferenceSession]:
    """Return what opens a file; muquant is imported where it has a part in that."""
    if policy is None:
        return functools.partial(stock, threads=threads)
    load_session = importlib.import_module("muquant_onnx").load_session
    options = {} if cache is None else {"cache": cache}
    return functools.partial(load_session, policy=policy, threads=threads, **options)


def stock(path: str, threads: int) -> ort.InferenceSession:
    """Open a file by onnxruntime alone."""
    options = ort.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, threads
    return ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def run(session: ort.InferenceSession, inputs: NDArray[Any]) -> NDArray[Any]:
    """The first output."""
    found: NDArray[Any] = session.run(None, {session.get_inputs()[0].name: inputs})[0]
    return found


def resident() -> int:
    """Bytes of memory that this process has."""
    return int(psutil.Process().memory_info().rss)


def probe(request: dict[str, Any]) -> dict[str, float]:
    """Load and run the file of `request`; where it names `outputs`, write those of all inputs there."""
    load = opener(request["policy"], request["cache"], request["threads"])
    inputs, session = np.load(request["inputs"]), None
    empty = [stock(request["empty"], request["threads"])]
    run(empty[0], np.zeros(1, np.float32))
    if request["policy"] is not None:
        empty.append(load(request["tiny"]))
    gc.collect()
    before = resident()
    with Meter() as loading:
        begin = time.process_time()
        session = load(request["path"])
        cpu = time.process_time() - begin
    loaded = resident()
    with Meter() as running:
        for _ in range(RUNS):
            run(session, inputs[:1])
    settled = resident()
    if request["outputs"] is not None:
        parts = [run(session, part) for part in np.array_split(inputs, -(-len(inputs) // AT_ONCE))]
        np.save(request["outputs"], np.concatenate(parts))
    return {
        "load_seconds": loading.seconds,
        "load_cpu_seconds": cpu,
        "load_peak_bytes": loading.peak_bytes,
        "loaded_bytes": loaded - before,
        "settled_bytes": settled - before,
        "run_peak_bytes": loaded - before + running.peak_bytes,
    }


if __name__ == "__main__":
    print(json.dumps(probe(json.loads(Path(sys.argv[1]).read_text()))))
