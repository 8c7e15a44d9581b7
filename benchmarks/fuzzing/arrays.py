"""Arrays of numpy: .npy files, and .npz archives of them."""

import io
import struct
import zipfile
from random import Random

from fuzzing import odd, raw

_TYPES = (
    *("<f4", ">f4", "<f8", "<f2", "<i8", "<u8", "|b1", "|i1", "<c8", "<U4", "|S4", "|O", "|V8", "<M8[ns]"),
    *("('<f4', (2,))", "[('a', '<f4')]", "<f16", "''", "1"),
)
_NAMES = ("../x.npy", "/x.npy", "x", "", "a\nb.npy", "\x1b[2J.npy", "x.npy", "input.npy", "\u202e.npy")


def array(content: bytes, random: Random) -> bytes:
    """Change header, values or bytes of a .npy file."""
    draw = random.randrange(10)
    if draw < 2:
        return raw.changed(content, random)
    data = content[-_data_length(content) :]
    if draw == 2:
        return content[: -len(data)] + raw.changed(data, random)
    shape = random.choice((*map(tuple, odd.SHAPES), (2**40,), (16, 2**36), (len(data) // 8,), ()))
    kind = random.choice(_TYPES) if random.randrange(2) else "<i8"
    written = kind if kind[0] in "([1'" else repr(kind)
    order = random.choice(("False", "True", "1", "None"))
    header = f"{{'descr': {written}, 'fortran_order': {order}, 'shape': {shape!r}, }}"
    if not random.randrange(8):
        header = random.choice((header[:-1], "{}", "[" * 500, header.replace("shape", "form"), "9" * 9000))
    return _npy(header, data, version=random.choice((1, 1, 1, 2, 3, 9)))


def archive(content: bytes, random: Random) -> bytes:
    """Change a .npz archive: its members, what it says of them, or its bytes."""
    if not random.randrange(4):
        return raw.changed(content, random)
    with zipfile.ZipFile(io.BytesIO(content)) as file:
        members = [(name, file.read(name)) for name in file.namelist()]
    at = random.randrange(len(members))
    name, inner = members[at]
    what = random.randrange(7)
    if what == 0:
        members[at] = random.choice(_NAMES), inner
    elif what == 1:
        members.append((random.choice((name, *_NAMES)), inner))
    elif what == 2:
        del members[at]
    elif what == 3:  # a small file that becomes a large one
        megabytes = random.choice((1, 64))
        header = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({megabytes << 18},), }}"
        members[at] = name, _npy(header, bytes(megabytes << 20), 1)
    else:
        members[at] = name, array(inner, random)
    packing = random.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", packing) as file:
        for index, (each, data) in enumerate(members):
            if each in [before for before, _ in members[:index]]:
                continue  # `zipfile` warns of a second one
            file.writestr(zipfile.ZipInfo(each or "empty"), data, packing)
    packed = bytearray(stream.getvalue())
    if what == 4:  # sizes, methods and flags of the directory
        places = [place for place in (packed.rfind(b"PK\x01\x02"), packed.rfind(b"PK\x05\x06")) if place >= 0]
        at = random.choice(places) + random.choice((8, 10, 12, 16, 20, 24, 28, 42))
        packed[at : at + 4] = random.choice((b"\xff" * 4, bytes(4), b"\x63\0\0\0", b"\x01\0\0\0"))
    return bytes(packed)


def _data_length(content: bytes) -> int:
    length = int.from_bytes(content[8:10], "little")
    return max(len(content) - 10 - length, 1)


def _npy(header: str, data: bytes, version: int) -> bytes:
    text = header.encode() + b"\n"
    size = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes((version, 0)) + size + text + data
