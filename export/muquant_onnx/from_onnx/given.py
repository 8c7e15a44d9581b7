"""What callers give as a model: a path, or the model itself."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import onnx

from muquant.base.errors import InputError
from muquant.base.files import temporary_folder
from muquant_onnx.files.external import tensors_of
from muquant_onnx.files.parse import parse
from muquant_onnx.files.wire import is_external
from muquant_onnx.files.write import INLINE_LIMIT

GivenModel = str | os.PathLike[str] | bytes | onnx.ModelProto
"""The path of an ONNX file, what is in it, or the message that it holds."""


@contextmanager
def as_file(given: GivenModel) -> Iterator[Path]:
    """Yield the path of a model; one that is no file yet is one inside the block, and messages that name it
    speak of "the model" instead.

    Raises:
        InputError: a model is larger than a file may be, refers to external data, or is none.
    """
    if isinstance(given, str | os.PathLike):
        yield Path(given)
        return
    with temporary_folder() as folder:
        path = Path(folder).resolve() / "model.onnx"
        try:
            path.write_bytes(_content(given))
            _refuse_external(path)
            yield path
        except InputError as error:
            raise InputError(str(error).replace(str(path), "the model")) from error


def _content(given: object) -> bytes:
    if isinstance(given, bytes):
        return given
    if not isinstance(given, onnx.ModelProto):
        raise InputError(
            f"found a model of type {type(given).__name__}, expected the path of an ONNX file, its bytes or "
            "an onnx.ModelProto; give one of these"
        )
    size = given.ByteSize()
    if size > INLINE_LIMIT:
        raise InputError(
            f"the model has {size:,} bytes, more than the {INLINE_LIMIT:,} of one ONNX file; save it with "
            "external data and give the path"
        )
    content: bytes = given.SerializeToString()
    return content


def _refuse_external(path: Path) -> None:
    for tensor in tensors_of(parse(path)):
        places = [entry.value for entry in tensor.external_data if entry.key == "location"]
        if is_external(tensor) and places != [path.name]:
            raise InputError(
                f"{path} has the tensor {tensor.name} in the file {', '.join(places)}, and no folder; give "
                "the path of the ONNX file"
            )
