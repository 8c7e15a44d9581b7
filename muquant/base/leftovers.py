"""Temporary files and folders that their writer holds a lock on while it lives; those of dead ones are swept.

The system frees a lock when its process ends, however it ends. So what has a name of ours and can be locked
is nobody's any more, whatever host or container shares the folder. Where a file system or a system knows no
such locks, nothing is swept.
"""

import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

if sys.platform != "win32":
    import fcntl

PREFIX = ".muquant-"
_NAME = re.compile(re.escape(PREFIX) + r"[a-z0-9_]{8}(\.\w+)?")


@contextmanager
def temporary_file(folder: str | os.PathLike[str], suffix: str = "") -> Iterator[Path]:
    """Yield a new file in `folder`, which only this user can read; if it is still there then, it is removed.

    It has to stay the file that it is: what is renamed over it would not be held.

    Raises:
        OSError: it cannot be made.
    """
    folder = _swept(Path(folder).absolute())
    while True:
        handle, name = tempfile.mkstemp(prefix=PREFIX, suffix=suffix, dir=folder)
        path = Path(name)
        if _hold(handle, path):
            break
        os.close(handle)
    try:
        yield path
    finally:
        path.unlink(missing_ok=True)
        os.close(handle)


@contextmanager
def temporary_folder_in(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a new folder in `folder`, which only this user can read, and remove it with all that is in it.

    Raises:
        OSError: it cannot be made.
    """
    folder = _swept(Path(folder).absolute())
    while True:
        path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=folder))
        handle = -1 if sys.platform == "win32" else os.open(path, os.O_RDONLY)
        if handle < 0 or _hold(handle, path):
            break
        os.close(handle)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        if handle >= 0:
            os.close(handle)


@contextmanager
def writing_in(folder: Path) -> Iterator[None]:
    """Keep other processes from sweeping `folder` as `sweeping_in` does; several may write in it at a time.

    Raises:
        OSError: there is no such folder.
    """
    with _locked(folder, exclusive=False):
        yield


@contextmanager
def sweeping_in(folder: Path) -> Iterator[bool]:
    """Yield whether no process writes in `folder` now, nor will begin to before this ends.

    Raises:
        OSError: there is no such folder.
    """
    with _locked(folder, exclusive=True) as alone:
        yield alone


@contextmanager
def _locked(folder: Path, *, exclusive: bool) -> Iterator[bool]:
    if sys.platform == "win32":
        yield False
        return
    handle, locked = os.open(folder, os.O_RDONLY), False
    try:
        with suppress(OSError):  # held by another, or no locks here
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB if exclusive else fcntl.LOCK_SH)
            locked = True
        yield locked
    finally:
        os.close(handle)


def _hold(handle: int, path: Path) -> bool:
    """Lock what was made just now; False where a sweeper was faster and it is gone.

    The lock is a shared one, which keeps sweepers away and lets `writing_in` have the same folder.
    """
    if sys.platform != "win32":
        with suppress(OSError):  # no locks here: nobody sweeps either
            fcntl.flock(handle, fcntl.LOCK_SH)
    return _is_there(handle, path)


def _is_there(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


@lru_cache(maxsize=1024)
def _swept(folder: Path) -> Path:
    """Return `folder` without what dead processes have left in it; a process looks once, before it writes."""
    with suppress(OSError):
        for path in folder.iterdir():
            if _NAME.fullmatch(path.name):
                with suppress(OSError):
                    _remove_unheld(path)
    return folder


def _remove_unheld(path: Path) -> None:
    """Remove a file or a folder of this user's that no process holds.

    Raises:
        OSError: one does, or it cannot be told.
    """
    if sys.platform == "win32":
        return
    handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(handle).st_uid != os.getuid() or not _is_there(handle, path):
            return
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
    finally:
        os.close(handle)
