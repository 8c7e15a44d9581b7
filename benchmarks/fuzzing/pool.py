"""A process that tries case after case, and the one that watches it: hangs, crashes and memory end it alone.

Processes are forked from one in which everything is imported and nothing has run, so that a new one is there
at once.
"""

import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import psutil
import torch

from fuzzing.agreement import plain_answer
from fuzzing.case import read_case
from fuzzing.readers import READERS
from fuzzing.reading import MODEL
from fuzzing.trial import Finding, judge, make

HANG = 5.0
"""Seconds of the processor that a case may take."""
_STILL = 6 * HANG
"""Seconds after which one hangs that does nothing, or is on a machine with other work."""
_MOST_CASES, _MOST_SECONDS = 2000, 60.0
"""After which a process is replaced."""
_ADDRESSES = 6 << 30
"""Bytes that a process may ask for beside what it begins with."""
_POLL = 0.2
_FORK: Any = multiprocessing.get_context("fork")


@dataclass
class Chunk:
    """Cases of a reader, one after the other, as far as they went.

    Attributes:
        reader: of `READERS`.
        first: seed of the first.
        done: how many were tried.
        refused: of these.
        seconds: that they took.
        findings: seed -> what is wrong.
        ended: how the process was ended before its time: "" where it was not, else "hang" or "crash".
    """

    reader: str
    first: int
    done: int = 0
    refused: int = 0
    seconds: float = 0.0
    findings: dict[int, Finding] = field(default_factory=dict)
    ended: str = ""


class Worker:
    """A process with a chunk.

    Args:
        reader: of `READERS`.
        first: seed of its first case.
        most: cases.
        seconds: after which it begins no other case.
        scratch: a folder for it alone.
    """

    def __init__(self, reader: str, first: int, most: int, seconds: float, scratch: Path) -> None:
        self.chunk = Chunk(reader, first)
        self.scratch = scratch
        self.began = _FORK.Array("d", [float("inf")] * 2, lock=False)  # of the case that runs, by two clocks
        self.counts = _FORK.Array("q", 2, lock=False)  # done, refused
        self.there, other = _FORK.Pipe(duplex=False)
        plan = (reader, first, min(most, _MOST_CASES), min(seconds, _MOST_SECONDS))
        self.start = time.monotonic()
        self.process = _FORK.Process(target=_work, args=(*plan, other, self.began, self.counts, scratch))
        self.process.start()
        other.close()

    def poll(self) -> Chunk | None:
        """Return the chunk once the process has ended, by itself or not."""
        if self.process.is_alive() and self._hangs():
            self.chunk.ended = "hang"
            self.process.kill()
            self.process.join()
        with suppress(EOFError):
            while self.there.poll():
                seed, finding = self.there.recv()
                self.chunk.findings[seed] = finding
        if self.process.is_alive():
            return None
        self.process.join()
        if self.process.exitcode and not self.chunk.ended:
            self.chunk.ended = "crash"
        self.chunk.done, self.chunk.refused = self.counts
        self.chunk.seconds = time.monotonic() - self.start
        shutil.rmtree(self.scratch, ignore_errors=True)
        return self.chunk

    def _hangs(self) -> bool:
        clock, processor = self.began
        if time.monotonic() - clock > _STILL:
            return True
        with suppress(psutil.NoSuchProcess):
            times = psutil.Process(self.process.pid).cpu_times()
            return bool(times.user + times.system - processor > HANG)
        return False


def alone(task: Callable[[], Finding | None], scratch: Path) -> Finding | None:
    """Run `task` in a process of its own; that it hangs or crashes is a finding too."""
    there, other = _FORK.Pipe(duplex=False)
    process = _FORK.Process(target=_answer, args=(task, other, scratch))
    process.start()
    other.close()
    found: Finding | None = Finding("crash", "")
    if there.poll(_STILL + 10):  # it has to begin, and seeds have to be made
        with suppress(EOFError):
            found = there.recv()
    else:
        found = Finding("hang", f"more than {_STILL:g} s")
    process.kill()
    process.join()
    shutil.rmtree(scratch, ignore_errors=True)
    return found


def again(reader: str, folder: Path, scratch: Path) -> Finding | None:
    """Judge a folder of files in a process of its own; None where nothing is wrong, or where it is not ours:
    onnxruntime alone hangs, crashes, or takes as much memory."""

    def task() -> Finding | None:
        READERS[reader].seeds()
        case = read_case(folder)
        began = time.process_time()
        _, finding = judge(reader, case)
        seconds = time.process_time() - began
        return Finding("hang", f"{seconds:.1f} s") if finding is None and seconds > HANG else finding

    finding = alone(task, scratch)
    if finding is None or finding.kind not in ("hang", "crash", "memory") or not (folder / MODEL).exists():
        return finding
    return None if alone(lambda: _alone_plainly(folder / MODEL), scratch) is not None else finding


def _alone_plainly(path: Path) -> Finding | None:
    before = psutil.Process().memory_info().rss
    began = time.process_time()
    plain_answer(path)
    if time.process_time() - began > HANG / 2:
        return Finding("hang", "")
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Finding("memory", "") if peak - before > 5 * 10**8 else None


def _work(
    reader: str,
    first: int,
    most: int,
    seconds: float,
    there: Connection,
    began: Any,
    counts: Any,
    scratch: Path,
) -> None:
    _settle_in(scratch)
    READERS[reader].seeds()
    end = time.monotonic() + seconds
    for seed in range(first, first + most):
        case = make(reader, seed)
        began[:] = time.monotonic(), time.process_time()
        refused, finding = judge(reader, case)
        began[:] = float("inf"), float("inf")
        counts[0] += 1
        counts[1] += refused
        if finding is not None:
            there.send((seed, finding))
        if time.monotonic() > end:
            break


def _answer(task: Callable[[], Finding | None], there: Connection, scratch: Path) -> None:
    _settle_in(scratch)
    there.send(task())


def _settle_in(scratch: Path) -> None:
    """A folder for what is temporary, silence, one thread, and no more memory than is there."""
    scratch.mkdir(parents=True, exist_ok=True)
    tempfile.tempdir = str(scratch)
    os.chdir(scratch)
    silence = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        os.dup2(silence, stream.fileno())
    torch.set_num_threads(1)
    limit = psutil.Process().memory_info().vms + _ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
