"""A command in a process of its own, which may kill itself at a point of its way.

Processes are forked from one in which everything is imported and nothing has run. Points are files that are
touched (opened, renamed, removed, made), counted by an audit hook, or times.
"""

import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

_FORK: Any = multiprocessing.get_context("fork")
_EVENTS = ("open", "os.", "tempfile.", "shutil.")
LONGEST = 120.0
"""Seconds that a command may take."""


@dataclass(frozen=True)
class Point:
    """Where a process kills itself.

    Attributes:
        event: before so many files are touched; None for a time.
        seconds: after its begin; None for an event.
    """

    event: int | None = None
    seconds: float | None = None


@dataclass(frozen=True)
class Ended:
    """How a process ended.

    Attributes:
        status: of its exit; minus a signal's number where that ended it.
        events: files that it has touched below its folder.
        seconds: that it took.
        words: what it printed.
    """

    status: int
    events: int
    seconds: float
    words: str


def run(task: Callable[[], object], folder: Path, point: Point | None = None) -> Ended:
    """Run `task` in a process, with `folder` the place of its files and of what is temporary.

    Args:
        task: what it does; an `int` that it returns is its status.
        folder: with the folders it works in; tmp/ in it is for what is temporary.
        point: where it kills itself; None lets it be.
    """
    there, other = _FORK.Pipe(duplex=False)
    began = time.monotonic()
    process = _FORK.Process(target=_run, args=(task, folder, point, other))
    process.start()
    other.close()
    process.join(LONGEST)
    if process.is_alive():
        process.kill()
        process.join()
        raise SystemExit(f"a command did not end within {LONGEST:g} s: {folder}")
    events = 0
    with suppress(EOFError):
        if there.poll():
            events = there.recv()
    words = folder / "words"
    text = words.read_text(errors="replace") if words.exists() else ""
    words.unlink(missing_ok=True)
    return Ended(process.exitcode, events, time.monotonic() - began, text)


def _run(task: Callable[[], object], folder: Path, point: Point | None, there: Connection) -> None:
    torch.set_num_threads(1)
    with (folder / "words").open("w") as words:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(words.fileno(), stream.fileno())
    (folder / "tmp").mkdir(exist_ok=True)
    tempfile.tempdir = str(folder / "tmp")
    os.chdir(folder)
    count, own = 0, os.fspath(folder)

    def kill() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, arguments: tuple[Any, ...]) -> None:
        nonlocal count
        if not event.startswith(_EVENTS):
            return
        paths = [str(os.fspath(each)) for each in arguments if isinstance(each, str | os.PathLike)]
        if any(path.startswith(own) or not path.startswith("/") for path in paths):
            count += 1
            if point is not None and count == point.event:
                kill()

    sys.addaudithook(hook)
    if point is not None and point.seconds is not None:
        threading.Timer(point.seconds, kill).start()
    status = task()
    there.send(count)
    if isinstance(status, int):
        os._exit(status)
    os._exit(0)
