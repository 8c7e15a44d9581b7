"""Sessions of stock onnxruntime: settings by name, the operators that really run, and what loading costs."""

import json
import os
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from muquant.errors import InputError, first_line
from muquant.registry import look_up


@dataclass(frozen=True)
class RuntimeSetting:
    """How onnxruntime is asked to run a file.

    Attributes:
        description: what it is for, in a line.
        optimize: whether graphs are optimised.
        entries: session configuration entries.
        rounds_activations: whether integer kernels round activations to int8, so that parity is not exact.
    """

    description: str
    optimize: bool = True
    entries: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    rounds_activations: bool = False


RUNTIME_SETTINGS: dict[str, RuntimeSetting] = {
    "default": RuntimeSetting(
        "as onnxruntime comes: fast integer kernels that round activations too", rounds_activations=True
    ),
    "accuracy-1": RuntimeSetting(
        "integer kernels that compute in float32", entries={"session.qdq_matmulnbits_accuracy_level": "1"}
    ),
    "unoptimized": RuntimeSetting("no graph optimisation: every node as the file states it", optimize=False),
}


def load_session(
    path: str | os.PathLike[str],
    setting: str = "default",
    *,
    threads: int = 0,
    optimized_path: str | None = None,
) -> ort.InferenceSession:
    """Open an ONNX file on the CPU.

    Args:
        path: of the file.
        setting: a name of `RUNTIME_SETTINGS`.
        threads: used within an operator; 0 leaves the number to onnxruntime.
        optimized_path: where to write the optimised model, if anywhere.

    Raises:
        InputError: the setting is unknown, or onnxruntime cannot load the file.
    """
    chosen, options = look_up("setting", setting, RUNTIME_SETTINGS), ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = threads
    if not chosen.optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    for key, value in chosen.entries.items():
        options.add_session_config_entry(key, value)
    if optimized_path is not None:
        options.optimized_model_filepath = optimized_path
    if not Path(path).is_file():
        raise InputError(f"cannot read {path}: no such file; name an ONNX file")
    try:
        return ort.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base
        raise InputError(f"onnxruntime cannot load {path}: {first_line(error)}") from error


def logits_of(session: ort.InferenceSession) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    """A session of one input as a function: images [N, ...] -> its first output, the logits [N, classes]."""
    inputs, output = session.get_inputs(), session.get_outputs()[0].name
    if len(inputs) != 1:
        raise InputError(f"expected a model of one input, found {len(inputs)}; give an image classifier")

    def run(images: NDArray[np.float32]) -> NDArray[Any]:
        logits: NDArray[Any] = session.run([output], {inputs[0].name: images})[0]
        return logits

    return run


def running_operators(path: str | os.PathLike[str], setting: str = "default") -> dict[str, int]:
    """Return the operator types that onnxruntime runs after its optimisations, with their number."""
    with tempfile.TemporaryDirectory() as folder:
        optimized = str(Path(folder, "optimized.onnx"))
        load_session(path, setting, optimized_path=optimized)
        counts = Counter(node.op_type for node in onnx.load(optimized, load_external_data=False).graph.node)
    return dict(sorted(counts.items()))


@dataclass(frozen=True)
class LoadCost:
    """What a file costs before its first answer, in a process of its own.

    Attributes:
        nbytes: size of the file.
        seconds: to open the session, median.
        resident: bytes of memory that the session added, median.
        peak: bytes of memory that loading added at its highest, median.
    """

    nbytes: int
    seconds: float
    resident: int
    peak: int


# As `load_session` opens it, without importing torch, which would take seconds. The peak is the kernel's own
# high-water mark, reset before loading; where the system keeps none, the memory after loading stands in.
_PROBE = """
import json, pathlib, re, sys, time
import onnxruntime, psutil
status, clear = pathlib.Path("/proc/self/status"), pathlib.Path("/proc/self/clear_refs")
def resident(): return psutil.Process().memory_info().rss
try: clear.write_text("5")
except OSError: pass
before, start = resident(), time.perf_counter()
session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
seconds, after = time.perf_counter() - start, resident()
mark = re.search(r"VmHWM:\\s+(\\d+) kB", status.read_text()) if status.exists() else None
peak = max(after, int(mark[1]) * 1024 if mark else 0)
print(json.dumps([seconds, after - before, peak - before]))
"""


def load_cost(path: str | os.PathLike[str], repetitions: int = 3) -> LoadCost:
    """Measure what loading `path` costs, each time in a fresh process.

    Raises:
        InputError: onnxruntime cannot load the file.
    """
    runs: list[Any] = []
    for _ in range(repetitions):
        command = [sys.executable, "-c", _PROBE, os.fspath(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
        if done.returncode:
            last = (done.stderr.strip() or f"status {done.returncode}").splitlines()[-1]
            raise InputError(f"onnxruntime cannot load {path}: {last}")
        runs.append(json.loads(done.stdout))
    seconds, resident, peak = (sorted(column)[len(runs) // 2] for column in zip(*runs, strict=True))
    return LoadCost(Path(path).stat().st_size, seconds, resident, peak)
