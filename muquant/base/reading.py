"""Files that are read: regular ones only, no more of them than they hold, and JSON that is what it says."""

import json
import math
import os
import stat
from io import BufferedReader
from pathlib import Path
from typing import Any, Never

from muquant.base.errors import InputError, first_line
from muquant.base.text import byte_size

LARGEST_JSON = 2**25
"""Bytes of the largest document that is read: in memory it may take 20 times as many."""
_DEEPEST = 64
_LARGEST_INTEGER = 2**64
_DIGITS = 25
"""Of an integer that is looked at; of more the time to read it grows with their square."""
_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_BINARY", "O_NONBLOCK", "O_NOCTTY"))
_KINDS = ((stat.S_ISDIR, "folder"), (stat.S_ISFIFO, "pipe"), (stat.S_ISSOCK, "socket"))


def kind_of(mode: int) -> str:
    """Return what is not a regular file in a word: "folder", "pipe", "socket" or "device"."""
    return next((word for is_kind, word in _KINDS if is_kind(mode)), "device")


def checked_path(path: str | os.PathLike[str]) -> Path:
    """Return `path`, whose name every library and runtime can take.

    Raises:
        InputError: the name, or that of a folder above it, holds NUL or is not UTF-8, or the current folder
            is gone.
    """
    try:
        whole = os.fspath(Path(path).absolute())
        whole.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"cannot use {os.fspath(path)}: its name, or that of a folder above it, is not UTF-8, which "
            "runtimes and ONNX files need; rename it"
        ) from error
    except OSError as error:
        raise InputError(f"cannot use {path}: the current folder is gone ({error.strerror})") from error
    if "\0" in whole:
        raise InputError(f"cannot use {os.fspath(path)}: names of files hold no NUL; name another")
    return Path(path)


def require_file(path: str | os.PathLike[str], advice: str = "name another") -> Path:
    """Return `path`, a regular file or a link to one: for libraries that open files themselves.

    Raises:
        InputError: there is none, or it is a folder, a pipe, a socket or a device.
    """
    with open_file(path, advice):
        return Path(path)


def open_file(path: str | os.PathLike[str], advice: str = "name another") -> BufferedReader:
    """Open a regular file, or a link to one, to read bytes; what waits or never ends is not waited for.

    Args:
        path: of the file.
        advice: ends the message.

    Raises:
        InputError: there is none, it cannot be read, or it is a folder, a pipe, a socket or a device.
    """
    path = checked_path(path)
    try:
        mode = path.stat().st_mode
        if not stat.S_ISREG(mode):
            raise InputError(f"cannot read {path}: it is a {kind_of(mode)}, no file; {advice}")
        return os.fdopen(os.open(path, _FLAGS), "rb")
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or first_line(error)}; {advice}") from error


def read_bytes(
    path: str | os.PathLike[str], largest: int | None = None, advice: str = "name another"
) -> bytes:
    """Read a regular file.

    Args:
        path: of the file.
        largest: bytes that it may hold; None for any number.
        advice: ends the message.

    Raises:
        InputError: it cannot be read, or holds more.
    """
    with open_file(path, advice) as file:
        nbytes = os.fstat(file.fileno()).st_size
        if largest is not None and nbytes > largest:
            raise InputError(
                f"{path} holds {byte_size(nbytes)}; expected at most {byte_size(largest)}; {advice}"
            )
        try:
            return file.read(nbytes)
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror}; {advice}") from error


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON document.

    Raises:
        InputError: the file is missing, or is what `parse_json` refuses.
    """
    return parse_json(read_bytes(path, LARGEST_JSON), str(path))


def parse_json(text: bytes | str, what: str) -> Any:
    """Return a JSON document as values that can be printed, copied and computed with.

    Args:
        text: as bytes, UTF-8.
        what: it is, for messages.

    Raises:
        InputError: it is not JSON, larger than `LARGEST_JSON`, deeper than 64 levels, or holds NaN, numbers
            beyond those of a float or of 64 bits, or half a character.
    """
    try:
        if len(text) > LARGEST_JSON:
            raise ValueError(f"{byte_size(len(text))}, expected at most {byte_size(LARGEST_JSON)}")
        document = json.loads(
            text, parse_int=_integer, parse_float=_number, parse_constant=_no_number, strict=True
        )
        _check_depth(document)
        json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # JSONDecodeError, UnicodeError, nested too deep
        raise InputError(f"{what} is not a JSON document that can be used: {first_line(error)}") from error
    return document


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS or abs(int(digits)) >= _LARGEST_INTEGER:
        raise ValueError(f"the integer {digits[:_DIGITS]}... is beyond 64 bits")
    return int(digits)


def _number(digits: str) -> float:
    value = float(digits)
    if math.isinf(value):
        raise ValueError(f"the number {digits[:_DIGITS]} is beyond what a float holds")
    return value


def _no_number(name: str) -> Never:
    raise ValueError(f"{name} is no number")


def _check_depth(document: Any) -> None:
    level, depth = [document] if isinstance(document, dict | list) else [], 0
    while level:
        if depth == _DEEPEST:
            raise ValueError(f"it is nested deeper than {_DEEPEST} levels")
        inner = [each.values() if isinstance(each, dict) else each for each in level]
        level, depth = [part for each in inner for part in each if isinstance(part, dict | list)], depth + 1
