"""Arrays in .npy and .npz files: what a header promises is compared with what is there before it is read."""

import math
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from muquant.base.errors import InputError, first_line
from muquant.base.reading import open_file
from muquant.base.text import byte_size

MOST_UNPACKED = 2**30
"""Bytes that the arrays of an archive may take beyond its own size: a file that is made to do harm unpacks to
a thousand times its size."""
_LONGEST_HEADER = 10_000
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_SUFFIX = ".npy"
_CHUNK = 2**24
_ADVICE = "write it with numpy.save or numpy.savez"

Array = NDArray[Any]


def read_arrays(path: str | os.PathLike[str]) -> dict[str, Array]:
    """Read a .npz file as arrays by name, or a .npy file as one without a name; nothing is unpickled.

    Raises:
        InputError: the file is missing, holds no arrays of numbers, is not whole, or an archive unpacks to
            more than `MOST_UNPACKED` beyond its size.
    """
    path = Path(path)
    with open_file(path) as file:
        nbytes = os.fstat(file.fileno()).st_size
        try:
            packed = file.read(2) == b"PK"
            file.seek(0)
            return dict(_unpacked(file, nbytes)) if packed else {"": _array(file, nbytes, "")}
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or first_line(error)}") from error
        except Exception as error:  # ours below, those of a zip file and its methods, of numpy's headers
            raise InputError(
                f"{path} holds no arrays of numbers that can be read ({first_line(error)}); {_ADVICE}"
            ) from error


def _unpacked(file: IO[bytes], nbytes: int) -> Iterator[tuple[str, Array]]:
    """Yield the arrays of an archive of `nbytes` bytes with their names."""
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        promised = sum(entry.file_size for entry in entries)
        if promised > nbytes + MOST_UNPACKED:
            raise ValueError(
                f"{byte_size(nbytes)} that unpack to {byte_size(promised)}; expected at most "
                f"{byte_size(MOST_UNPACKED)} more than the file has, or numpy.savez, which does not pack"
            )
        names = [entry.filename for entry in entries]
        if len(set(names)) < len(names):
            raise ValueError("two arrays have one name; expected a name for each")
        for entry in entries:
            name = entry.filename.removesuffix(_SUFFIX)
            with archive.open(entry) as stream:
                yield name, _array(stream, entry.file_size, f"{name}: ")


def _array(stream: IO[bytes], nbytes: int, what: str) -> Array:
    """Read an array of at most `nbytes` bytes, header included."""
    start = stream.read(8)
    if len(start) < 8 or start[:6] != npy.magic(1, 0)[:6]:
        raise ValueError(f"{what}it is no array; expected one of numbers")
    read_header = _HEADERS.get((start[6], start[7]))
    if read_header is None:
        raise ValueError(f"{what}it is in version {start[6]}.{start[7]} of numpy's format; expected numbers")
    shape, by_columns, dtype = read_header(stream, max_header_size=_LONGEST_HEADER)
    if dtype.kind not in "biufc" or any(type(size) is not int or size < 0 for size in shape):
        raise ValueError(f"{what}it is {dtype} {shape}; expected numbers")
    size = math.prod(shape) * dtype.itemsize
    if size > nbytes:
        raise ValueError(
            f"{what}its header promises {byte_size(size)}, and the file holds {byte_size(nbytes)}"
        )
    flat: Array = np.frombuffer(_filled(stream, size, what), dtype)
    return flat.reshape(shape, order="F" if by_columns else "C")


def _filled(stream: IO[bytes], size: int, what: str) -> bytearray:
    data, done = bytearray(size), 0
    while done < size:
        chunk = stream.read(min(_CHUNK, size - done))
        if not chunk:
            raise ValueError(f"{what}its header promises {byte_size(size)}, and {byte_size(done)} are there")
        data[done : done + len(chunk)] = chunk
        done += len(chunk)
    return data
