"""What a block of code takes: seconds, and memory at its highest."""

import gc
import re
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class Meter:
    """A context that measures what runs inside it, in a process that does nothing else.

    The peak is the kernel's own high-water mark (what `getrusage` reports as well), reset on entry: what was
    needed before does not hide what is needed now.

    Attributes:
        seconds: wall time.
        peak_bytes: resident memory at its highest, less that on entry.
    """

    seconds = peak_bytes = float("nan")

    def __enter__(self) -> Self:
        gc.collect()
        _CLEAR.write_text("5")
        self._before, self._start = psutil.Process().memory_info().rss, time.perf_counter()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.seconds = time.perf_counter() - self._start
        mark = re.search(r"VmHWM:\s+(\d+) kB", _STATUS.read_text())
        assert mark is not None
        self.peak_bytes = int(mark[1]) * 1024 - self._before
