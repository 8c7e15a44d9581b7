"""Codes to bytes and back: a little-endian bit stream, so that 3-bit codes take 3 bits.

Code j occupies the bits [b j, b j + b) of the stream, least significant bit first; 8 codes fill b bytes
exactly, and the stream is padded with zero codes to whole runs of 8 once, at its end.
"""

import numpy as np
from numpy.typing import NDArray

from muquant.errors import InputError

RUN = 8  # codes in `bits` bytes
_CHUNK = 2**14  # runs handled at a time: their words stay in the processor's cache

Bytes = NDArray[np.uint8]


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
    if packed.size != packed_size(count, bits):
        raise InputError(
            f"{packed.size} bytes cannot hold {count} codes of {bits} bits; "
            f"expected {packed_size(count, bits)} bytes"
        )
    runs = packed.size // bits
    padded = np.zeros((runs, 8), np.uint8)
    padded[:, :bits] = packed.reshape(runs, bits)
    words = padded.reshape(-1).view("<u8")
    mask = np.uint64((1 << bits) - 1)
    codes = np.empty((runs, RUN), np.uint8)
    for j in range(RUN):
        codes[:, j] = (words >> np.uint64(bits * j)) & mask
    return codes.reshape(-1)[:count]
