"""An ONNX file without its large tensors, and back: so that no file is ever in memory as a whole.

Both directions walk the protobuf encoding, a sequence of fields: a key (number and wire type) and a value;
strings, bytes and messages begin with their length. `detach` leaves large tensors where they are and refers
to them as external data, `attach` puts in their place what such references point to.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import onnx

LARGE = 4096
"""Bytes from which a tensor is worth leaving in its file."""

_CHILDREN: dict[str, dict[int, str]] = {
    "model": {7: "graph", 25: "function"},
    "graph": {1: "node", 5: "tensor"},
    "function": {7: "node"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph"},
    "tensor": {},
}
"""Kind of message -> the fields in which tensors may be found, and their kinds."""
_MERGED = frozenset({5, 6})
"""Fields of an attribute that protobuf merges where there are several of them: these stay as they are."""
_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 9, 13, 14
_LOCATIONS = onnx.TensorProto.DataLocation.values()
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED = {_FIXED64: 8, _FIXED32: 4}
_CHUNK = 1 << 20

Buffer = bytes | memoryview


@dataclass(frozen=True)
class FileRange:
    """Bytes of a file that are still there."""

    path: Path
    offset: int
    length: int

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes in order, a few at a time."""
        with self.path.open("rb") as file:
            file.seek(self.offset)
            left = self.length
            while left:
                chunk = file.read(min(left, _CHUNK))
                if not chunk:
                    raise OSError(f"{self.path} ended while it was read")
                left -= len(chunk)
                yield chunk


Pieces = list[bytes | FileRange]


def detach(message: memoryview, location: str) -> bytes:
    """Return a serialized model in which large tensors refer to `message` as external data at `location`.

    Raises:
        ValueError: `message` is not whole protobuf.
    """
    return bytes(_detach(message, 0, len(message), "model", location))


def _detach(data: memoryview, start: int, end: int, kind: str, location: str) -> bytearray:
    if kind == "tensor":
        return _detach_tensor(data, start, end, location)
    out = bytearray()
    merged = _repeated(data, start, end) & _MERGED if kind == "attribute" else frozenset[int]()
    for field in _fields(data, start, end):
        child = _CHILDREN[kind].get(field.number) if field.wire == _BYTES else None
        if child is not None and field.end - field.start >= LARGE and field.number not in merged:
            inner = _detach(data, field.start, field.end, child, location)
            out += _header(field.number, len(inner)) + inner
        else:
            out += data[field.key : field.end]
    return out


def _repeated(data: memoryview, start: int, end: int) -> frozenset[int]:
    counts = Counter(field.number for field in _fields(data, start, end))
    return frozenset(number for number, count in counts.items() if count > 1)


def _detach_tensor(data: memoryview, start: int, end: int, location: str) -> bytearray:
    stated, raw = 0, None
    for field in _fields(data, start, end):  # of several, the last one holds
        if (field.number, field.wire) == (_RAW_DATA, _BYTES):
            raw = field
        elif (field.number, field.wire) == (_DATA_LOCATION, _VARINT):
            value = _varint(data, field.start, field.end)[0] & 0xFFFFFFFF
            stated = value if value in _LOCATIONS else stated  # protobuf passes over unknown ones
    dropped, stub = frozenset[int](), onnx.TensorProto()
    if stated == onnx.TensorProto.EXTERNAL:
        dropped = frozenset({_RAW_DATA})
    elif raw is not None and raw.end - raw.start >= LARGE:
        dropped = frozenset({_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION})
        refer(stub, location, raw.start, raw.end - raw.start)
    out = bytearray()
    for field in _fields(data, start, end):
        if field.number not in dropped:
            out += data[field.key : field.end]
    out += stub.SerializeToString()
    return out


def settle(tensor: onnx.TensorProto) -> None:
    """Leave in `tensor` what onnxruntime looks at: no raw bytes where it is external, else no entries of
    external data."""
    if is_external(tensor):
        tensor.ClearField("raw_data")
    else:
        _make_internal(tensor)


def refer(tensor: onnx.TensorProto, location: str, offset: int, length: int) -> None:
    """Let `tensor` have its bytes as external data there."""
    tensor.data_location = onnx.TensorProto.EXTERNAL
    del tensor.external_data[:]
    for key, value in (("location", location), ("offset", str(offset)), ("length", str(length))):
        tensor.external_data.add(key=key, value=value)


def embed(tensor: onnx.TensorProto, content: FileRange) -> None:
    """Make the bytes of `content` part of an external tensor."""
    _make_internal(tensor)
    tensor.raw_data = b"".join(content.chunks())


def _make_internal(tensor: onnx.TensorProto) -> None:
    del tensor.external_data[:]
    tensor.ClearField("data_location")


def is_external(tensor: onnx.TensorProto) -> bool:
    """Whether the bytes of `tensor` are external data."""
    external: bool = tensor.data_location == onnx.TensorProto.EXTERNAL
    return external


def range_of(tensor: onnx.TensorProto) -> FileRange:
    """Return where the bytes of an external tensor are, as `refer` states it."""
    entry = {item.key: item.value for item in tensor.external_data}
    return FileRange(Path(entry["location"]), int(entry["offset"]), int(entry["length"]))


def attach(skeleton: bytes) -> Pieces:
    """Return the pieces of a serialized model in which external data has become part of the file.

    Args:
        skeleton: a serialized model; locations are whole paths, with offset and length.
    """
    return _attach(skeleton, "model")


def _attach(data: bytes, kind: str) -> Pieces:
    if kind == "tensor":
        return _attach_tensor(data)
    pieces: Pieces = []
    whole = 0  # up to here `data` is in `pieces`
    for field in _fields(memoryview(data), 0, len(data)):
        child = _CHILDREN[kind].get(field.number) if field.wire == _BYTES else None
        if child is not None and data.find(b"location", field.start, field.end) >= 0:
            inner = _attach(data[field.start : field.end], child)
            pieces += [data[whole : field.key], _header(field.number, total(inner)), *inner]
            whole = field.end
    return [*pieces, data[whole:]]


def _attach_tensor(data: bytes) -> Pieces:
    tensor = onnx.TensorProto.FromString(data)
    if not is_external(tensor):
        return [data]
    content = range_of(tensor)
    _make_internal(tensor)
    return [tensor.SerializeToString(deterministic=True) + _header(_RAW_DATA, content.length), content]


def total(pieces: Sequence[bytes | FileRange]) -> int:
    """Return the number of bytes of `pieces`."""
    return sum(piece.length if isinstance(piece, FileRange) else len(piece) for piece in pieces)


def write_pieces(file: BinaryIO, pieces: Sequence[bytes | FileRange]) -> None:
    """Write `pieces`, a few bytes at a time."""
    for piece in pieces:
        for chunk in piece.chunks() if isinstance(piece, FileRange) else (piece,):
            file.write(chunk)


@dataclass(frozen=True)
class _Field:
    """A field of a message: where its key and its value lie."""

    number: int
    wire: int
    key: int
    start: int
    end: int


def _fields(data: memoryview, position: int, end: int) -> Iterator[_Field]:
    while position < end:
        key = position
        tag, start = _varint(data, key, end)
        number, wire = tag >> 3, tag & 7
        if wire == _VARINT:
            stop = _varint(data, start, end)[1]
        elif wire == _BYTES:
            size, start = _varint(data, start, end)
            stop = start + size
        elif wire in _FIXED:
            stop = start + _FIXED[wire]
        else:
            raise ValueError(f"byte {key} begins no field")
        if stop > end:
            raise ValueError(f"the field at byte {key} has no end")
        yield _Field(number, wire, key, start, stop)
        position = stop


def _varint(data: memoryview, position: int, end: int) -> tuple[int, int]:
    """Return the number at `position`, seven bits a byte, and the position behind it."""
    number = 0
    for place in range(min(10, end - position)):
        byte = data[position + place]
        number |= (byte & 127) << (7 * place)
        if byte < 128:
            return number, position + place + 1
    raise ValueError(f"the number at byte {position} has no end")


def _header(number: int, size: int) -> bytes:
    """Key and length of a field of bytes."""
    out = bytearray()
    for value in (number << 3 | _BYTES, size):
        while value > 127:
            out.append(value & 127 | 128)
            value >>= 7
        out.append(value)
    return bytes(out)
