"""What loading a file costs, measured in a process of its own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muquant.errors import InputError


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
