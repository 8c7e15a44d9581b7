"""What it costs to load and to run a file, and how a process of Python measures that of itself."""

import gc
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")
_RUNS = 50


@dataclass(frozen=True)
class LoadCost:
    """What a file costs in a process of its own; bytes of memory are those above an empty session's.

    Attributes:
        nbytes: size of the file.
        seconds: to open the session.
        peak: bytes of memory while loading, at the highest; None where the process does not know.
        loaded: bytes of memory behind loading; likewise.
        settled: bytes of memory after some runs of the first inputs that are timed; likewise.
        latency: seconds of a run by the number of inputs, medians; without those that the model refuses.
    """

    nbytes: int
    seconds: float
    peak: int | None
    loaded: int | None
    settled: int | None
    latency: dict[int, float]


class Memory:
    """The memory of this process, from now on.

    The peak is the kernel's own high-water mark, reset here; where the system keeps none, it is what the
    process has when it is asked.
    """

    def __init__(self) -> None:
        gc.collect()
        with suppress(OSError):
            _CLEAR.write_text("5")
        self._before = self._resident()

    def more(self) -> int:
        """Bytes that the process has now, above what it had."""
        return self._resident() - self._before

    def peak(self) -> int:
        """Bytes that it had at most, above what it had."""
        mark = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text()) if _STATUS.exists() else None
        return max(self._resident(), int(mark[1]) * 1024 if mark else 0) - self._before

    @staticmethod
    def _resident() -> int:
        return int(psutil.Process().memory_info().rss)


def median_seconds(run: Callable[[], object], seconds: float) -> float:
    """Call `run` once for nothing, then for about `seconds`, at most 50 times, and return the median."""
    run()
    times: list[float] = []
    while not times or (len(times) < _RUNS and sum(times) < seconds):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]
