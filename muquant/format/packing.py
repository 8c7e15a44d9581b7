"""Codes to bytes and back: a little-endian bit stream, so that 3-bit codes take 3 bits.

Code j occupies the bits [b j, b j + b) of the stream, least significant bit first; 8 codes fill b bytes
exactly, and the stream is padded with zero codes to whole runs of 8 once, at its end.
"""

from functools import cache
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from muquant.base.errors import InputError

RUN = 8  # codes in `bits` bytes
CODES_PER_WORD = {1: 4, 2: 4, 3: 4, 4: 2, 5: 2, 6: 2, 7: 2, 8: 1}
"""By bits: wide words that divide a run, of at most 2^14 values, so that tables of them are small."""
_CHUNK = 2**14  # runs handled at a time: their words stay in the processor's cache

Bytes = NDArray[np.uint8]
Value = TypeVar("Value", bound=np.integer[Any])


def packed_size(count: int, bits: int) -> int:
    """Return the number of bytes for `count` codes of `bits` bits."""
    return -(-count // RUN) * bits


def pack(codes: Bytes, bits: int) -> Bytes:
    """Pack codes [n], each below 2^bits, into bytes [packed_size(n, bits)]; bits from 1 to 8.

    Raises:
        InputError: a code does not fit.
    """
    if codes.size and int(codes.max()) >> bits:
        raise InputError(
            f"code {int(codes.max())} does not fit in {bits} bits; expected codes below {1 << bits}"
        )
    runs = -(-codes.size // RUN)
    padded = codes
    if codes.size != runs * RUN:
        padded = np.zeros(runs * RUN, np.uint8)
        padded[: codes.size] = codes
    columns = padded.reshape(runs, RUN)
    packed = np.empty((runs, bits), np.uint8)
    for start in range(0, runs, _CHUNK):
        part = columns[start : start + _CHUNK]
        words = np.zeros(len(part), "<u8")
        for j in range(RUN):
            words |= part[:, j].astype("<u8") << np.uint64(bits * j)
        packed[start : start + _CHUNK] = words.view(np.uint8).reshape(-1, 8)[:, :bits]
    return packed.reshape(-1)


def unpack(packed: Bytes, bits: int, count: int) -> Bytes:
    """Return the first `count` codes [count] of bytes that `pack` made.

    Raises:
        InputError: the number of bytes is not that of `count` codes.
    """
    return look_up(packed, bits, count, np.arange(1 << bits, dtype=np.uint8))


def look_up(packed: Bytes, bits: int, count: int, values: NDArray[Value]) -> NDArray[Value]:
    """Unpack codes and look each of them up, `values[codes]`, in one go: whole words of codes at a time.

    Args:
        packed: bytes that `pack` made, of codes of `bits` bits.
        bits: width of a code.
        count: how many codes, those that only fill the last run excluded.
        values: [2^bits], of an integer type of one or two bytes.

    Returns:
        [count], of the type of `values`.

    Raises:
        InputError: the number of bytes is not that of `count` codes.
    """
    if packed.size != packed_size(count, bits):
        raise InputError(
            f"{packed.size} bytes cannot hold {count} codes of {bits} bits; "
            f"expected {packed_size(count, bits)} bytes"
        )
    per_word = CODES_PER_WORD[bits]
    table = np.ascontiguousarray(values[_words(bits)]).view(f"u{per_word * values.itemsize}")
    columns = packed.reshape(-1, bits)
    found = np.empty((len(columns), RUN // per_word), table.dtype)
    for start in range(0, len(columns), _CHUNK):
        part = columns[start : start + _CHUNK].astype(np.uint16)
        out = found[start : start + len(part)]
        for i in range(RUN // per_word):
            out[:, i] = table[_word(part, i * bits * per_word, bits * per_word), 0]
    return found.reshape(-1).view(values.dtype)[:count]


@cache
def _words(bits: int) -> NDArray[np.uint8]:
    """The codes of every word [words, codes in a word]."""
    shifts = bits * np.arange(CODES_PER_WORD[bits])
    words = np.arange(1 << (bits * len(shifts)))[:, None]
    return (words >> shifts & ((1 << bits) - 1)).astype(np.uint8)


def _word(columns: NDArray[np.uint16], offset: int, width: int) -> NDArray[np.uint16]:
    """The `width` bits, at most 14, from bit `offset` of each row of bytes on."""
    first, shift = divmod(offset, 8)
    word = columns[:, first] >> np.uint16(shift)
    for place in range(first + 1, (offset + width - 1) // 8 + 1):
        word |= columns[:, place] << np.uint16(8 * (place - first) - shift)
    return word & np.uint16((1 << width) - 1)
