"""What the system says no to, in one line; and standard streams that take whatever is printed."""

import errno
import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

import click

from muquant.base.errors import InputError, first_line
from muquant.base.text import printable

BAD_INPUT = 2
_END = 2000
_NO_MEMORY = ("can't allocate memory", "out of memory")
"""What torch says where there is none, in errors of no type of its own."""


@contextmanager
def one_line() -> Iterator[None]:
    """End the process with one line and exit status 2 for what users or the system can mend: an `InputError`,
    what the system says to reading and writing, and memory that is not there."""
    try:
        _prepare_streams()
        try:
            with _warnings_in_one_line():
                yield
        except SystemExit:
            _flush()
            raise
        _flush()
    except InputError as error:
        _end(str(error))
    except OSError as error:
        _end(_words(error))
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not any(each in str(error) for each in _NO_MEMORY):
            raise
        _end(f"out of memory ({first_line(error)}); give the process more, or take smaller files")


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Print what code warns users of as everything else is printed, without the line of code that said it."""
    with warnings.catch_warnings():
        usual = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any) -> None:
            if issubclass(category, UserWarning):
                complain(f"warning: {message}")
            else:
                usual(message, category, *place)

        warnings.showwarning = show  # type: ignore[assignment]
        yield


def complain(text: str) -> None:
    """Print a line about what is wrong on stderr; of a long one, as names in files can make it, both ends."""
    line = " ".join(text.split())
    if len(line) > 2 * _END:
        line = f"{line[:_END]} ... {line[-_END:]}"
    click.echo(f"muquant: {printable(line)}", err=True)


def _prepare_streams() -> None:
    """Let streams escape what their encoding has not, and no file take the place of one that is closed.

    Raises:
        InputError: stdout is closed.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free, which is this one
    if sys.stdout is None:
        raise InputError("stdout is closed; let it go to /dev/null if nothing is to be printed")


def _flush() -> None:
    """Write what is still to be written, while an error can be told."""
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def _end(text: str) -> NoReturn:
    with suppress(OSError):
        complain(f"error: {text}")
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:
                stream.flush()
        except OSError:  # python would try it again when it ends, and print a traceback
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    sys.exit(BAD_INPUT)


def _words(error: OSError) -> str:
    reason = error.strerror or first_line(error)
    if error.filename is not None:
        return f"cannot use {os.fsdecode(error.filename)}: {reason}; name another file or folder"
    if error.errno == errno.ENOENT:  # it comes without a name from tempfile alone
        return f"{reason}; let TMPDIR name a folder that can be written"
    return f"cannot write what is to be printed, or another file: {reason}; see what stdout goes to"
