"""Safetensors files with a manifest and a checksum, which is made right again: anyone can compute one."""

import hashlib
import json
import math
import struct
from random import Random
from typing import Any

from fuzzing import documents, odd, raw

_TYPES = (
    *("F64", "F32", "F16", "BF16", "F8_E4M3", "F8_E5M2", "F4", "F6_E2M3", "C64"),
    *("I64", "I32", "I16", "I8", "U64", "U32", "U16", "U8", "BOOL", "X"),
)
_BLANK = "0" * 64
_FLOATS = (float("nan"), float("inf"), -float("inf"), -1.0, 0.0, 3e38, 1e-40)
_WORDS = (b"\xff" * 4, *(struct.pack("<f", each) for each in _FLOATS))


def tensor_file(content: bytes, random: Random) -> bytes:
    """Change manifest, header, values or bytes of a file; but for the bytes its checksum is right."""
    if not random.randrange(12):
        return raw.changed(content, random)
    header, data = split(content)
    for _ in range(random.choice((1, 1, 2))):
        draw = random.randrange(10)
        if draw < 5:
            _change_manifest(header, random)
        elif draw < 8:
            _change_entry(header, len(data), random)
        else:
            data = _change_values(header, data, random)
    if not random.randrange(20):
        data += bytes(random.choice((1, 4, 1000)))
    return join(header, data)


def plain_tensor_file(content: bytes, random: Random) -> bytes:
    """Change header, values or bytes of a safetensors file without a manifest."""
    if not random.randrange(8):
        return raw.changed(content, random)
    header, data = split(content)
    if random.randrange(3):
        _change_entry(header, len(data), random)
    else:
        data = _change_values(header, data, random)
    return join(header, data)


def split(content: bytes) -> tuple[dict[str, Any], bytes]:
    """Return the header and the data of a safetensors file."""
    (length,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + length]), content[8 + length :]


def join(header: dict[str, Any], data: bytes) -> bytes:
    """Return a safetensors file, its checksum right where it has one."""
    metadata = header.get("__metadata__")
    signed = False
    if isinstance(metadata, dict) and "sha256" in metadata:
        signed = True
        header = {**header, "__metadata__": {**metadata, "sha256": _BLANK}}
    text = documents.encode(_compact(header))
    text += b" " * (-len(text) % 8)
    whole = struct.pack("<Q", len(text)) + text + data
    if not signed:
        return whole
    digest = hashlib.sha256(whole).hexdigest()
    return whole.replace(f'"sha256":"{_BLANK}"'.encode(), f'"sha256":"{digest}"'.encode(), 1)


def _compact(header: dict[str, Any]) -> str:
    """As `safetensors` writes it, without spaces around the checksum."""
    return documents.dump(header).replace('"sha256": "', '"sha256":"')


def _change_manifest(header: dict[str, Any], random: Random) -> None:
    metadata = header.get("__metadata__")
    if not isinstance(metadata, dict) or "muquant" not in metadata:
        return
    if not random.randrange(15):
        key = random.choice(list(metadata))
        metadata[random.choice(odd.TEXTS)] = metadata.pop(key)
        return
    metadata["muquant"] = documents.text(metadata["muquant"], random)


def _change_entry(header: dict[str, Any], length: int, random: Random) -> None:
    names = [name for name, entry in header.items() if name != "__metadata__" and isinstance(entry, dict)]
    if not names:
        return
    name = random.choice(names)
    entry = header[name]
    shape, offsets = entry.get("shape", []), entry.get("data_offsets", [0, 0])
    what = random.randrange(7)
    if what == 0:
        entry["dtype"] = random.choice(_TYPES)
    elif what == 1:
        entry["shape"] = list(random.choice(odd.SHAPES))
    elif what == 2 and shape:
        shape[random.randrange(len(shape))] = random.choice(odd.INTEGERS)
    elif what == 3:
        count = math.prod(each for each in shape if isinstance(each, int))  # one of them may be odd by now
        entry["shape"] = random.choice(([count], [1, count], [*shape, 1], shape[::-1], [1] * 66 + [count]))
    elif what == 4:
        entry["data_offsets"] = [each + random.choice((0, 1, -1, 4, 2**62)) for each in offsets]
    elif what == 5:
        header[random.choice((name + "x", *names, *odd.TEXTS))] = header.pop(name)
    else:
        empty = {"dtype": random.choice(_TYPES), "shape": [0], "data_offsets": [length, length]}
        header[random.choice(odd.TEXTS)] = empty


def _change_values(header: dict[str, Any], data: bytes, random: Random) -> bytes:
    """Put odd floats into one tensor, or shuffle its bytes."""
    entries = [entry for name, entry in header.items() if name != "__metadata__" and isinstance(entry, dict)]
    offsets = random.choice(entries).get("data_offsets", [0, 0]) if entries else [0, 0]
    begin, end = (min(max(int(each), 0), len(data)) for each in offsets)
    if end - begin < 4:
        return data
    values = bytearray(data[begin:end])
    if not random.randrange(3):
        return data[:begin] + bytes(values[::-1]) + data[end:]
    count = random.choice((1, 4, len(values) // 4))
    word = random.choice(_WORDS)
    start = 4 * random.randrange(len(values) // 4)
    for at in range(start, min(start + 4 * count, len(values) - 3), 4):
        values[at : at + 4] = word
    return data[:begin] + bytes(values) + data[end:]
