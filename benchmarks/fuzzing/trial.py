"""One case: made, read, judged."""

import tempfile
import traceback
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psutil

from fuzzing.case import Case, write_case
from fuzzing.readers import READERS
from muquant.base.errors import InputError

ABOVE_INPUT = 10**9
"""Bytes of memory that reading a case may take, beside what its files have."""
_CLEAR, _STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass(frozen=True)
class Finding:
    """Something wrong.

    Attributes:
        kind: its type and where it came from; equal for what is most likely one fault.
        words: a traceback, or what was measured.
    """

    kind: str
    words: str


def make(reader: str, seed: int) -> Case:
    """Return the case of a seed, the same in every process."""
    return READERS[reader].make(Random(f"{reader} {seed}"))


def judge(reader: str, case: Case) -> tuple[bool, Finding | None]:
    """Read a case in a folder of its own: whether it was refused, and what is wrong, if anything."""
    with tempfile.TemporaryDirectory(prefix="case-") as folder:
        return _judge(reader, write_case(case, Path(folder)), sum(map(len, case.values())))


def _judge(reader: str, folder: Path, nbytes: int) -> tuple[bool, Finding | None]:
    before = psutil.Process().memory_info().rss
    _forget_peak()
    refused = False
    try:
        READERS[reader].read(folder)
    except InputError:
        refused = True
    except Exception as error:  # all others are findings
        return False, Finding(_kind(error), traceback.format_exc())
    taken = _peak() - before
    if taken > ABOVE_INPUT + nbytes:
        return refused, Finding("memory", f"{taken / 1e9:.2f} GB for files of {nbytes:,} bytes")
    return refused, None


def _kind(error: Exception) -> str:
    """The error's type, and the last line of ours that it came through."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "/muquant" in frame.filename] or list(frames)
    place = f"{Path(ours[-1].filename).name}:{ours[-1].name}"
    words = str(error).partition(":")[0] if type(error).__module__.startswith("fuzzing") else ""
    return " ".join(filter(None, (type(error).__name__, place, words[:60])))


def _forget_peak() -> None:
    """Let the kernel count the largest memory anew, where it can."""
    with suppress(OSError):
        _CLEAR.write_text("5")


def _peak() -> int:
    """The largest resident memory since then, bytes; 0 where that is not told."""
    if not _CLEAR.exists():
        return 0
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])
