"""Write a model, whole or not at all, without ever holding it in memory."""

import hashlib
import mmap
import re
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from muquant.base.errors import InputError, first_line
from muquant.base.files import atomic_path, put_in_place, target_of
from muquant.base.leftovers import sweeping_in, writing_in
from muquant.base.reading import open_file
from muquant_onnx.files.check import check
from muquant_onnx.files.external import graphs_of, tensors_of
from muquant_onnx.files.wire import attach, is_external, range_of, refer, total, write_pieces

INLINE_LIMIT = 2**31 - 1
"""Bytes that one protobuf message, an ONNX file, may have."""
_ALIGNMENT = 4096
"""Of external tensors, so that runtimes can map them."""


@dataclass(frozen=True)
class Written:
    """Files that were written.

    Attributes:
        nbytes: their size.
        data: path of the external data, or None.
    """

    nbytes: int
    data: Path | None


def write_graph(model: ir.Model, path: Path, scratch: Path) -> Written:
    """Write `model`, whose external tensors state whole paths, to `path`; its large tensors beside it, where
    one file cannot hold all.

    The external data is named after its content, so that what another version of the file refers to is never
    overwritten, and a model that is being replaced is whole at any time. Such data that no file of the folder
    refers to any more is removed, once the new model is there.

    Args:
        model: to write.
        path: of the ONNX file.
        scratch: a folder on the same file system, for files that are not done.

    Raises:
        InputError: a file cannot be written, or neither onnx nor onnxruntime takes the model.
    """
    path = target_of(path)  # data is looked for beside a model, not beside a link to it
    proto = as_proto(model)
    check(proto, path)
    pieces = attach(proto.SerializeToString(deterministic=True))
    if total(pieces) <= INLINE_LIMIT:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            write_pieces(file, pieces)
        _sweep_data(path)
        return Written(total(pieces), None)
    staged = scratch / "data"
    digest = _move_out(proto, staged)
    data = path.with_name(f"{path.stem}.{digest}.data")
    for tensor in _external(proto):
        part = range_of(tensor)
        refer(tensor, data.name, part.offset, part.length)
    nbytes, is_new = staged.stat().st_size, not data.exists()
    with writing_in(path.parent), ExitStack() as undo:
        with atomic_path(path) as temporary:
            nbytes += temporary.write_bytes(proto.SerializeToString(deterministic=True))
            put_in_place(staged, data)
            if is_new:
                undo.callback(data.unlink)
        undo.pop_all()
    _sweep_data(path)
    return Written(nbytes, data)


def _sweep_data(path: Path) -> None:
    """Remove data of earlier versions of the model at `path`, told by its name, that no file there names."""
    name = re.compile(rf"{re.escape(path.stem)}\.[0-9a-f]{{16}}\.data")
    with suppress(OSError, InputError):  # where it cannot be told, it stays
        if not any(name.fullmatch(file.name) for file in path.parent.iterdir()):
            return
        with sweeping_in(path.parent) as alone:
            files = [file for file in path.parent.iterdir() if alone and file.is_file()]
            data = [file for file in files if name.fullmatch(file.name)]
            models = [file for file in files if file.suffix != ".data" and 0 < file.stat().st_size < 2**31]
            for file in data:
                if not any(_holds(model, file.name.encode()) for model in models):
                    file.unlink()


def _holds(file: Path, text: bytes) -> bool:
    """Whether the text is in a file."""
    with open_file(file) as opened, mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ) as content:
        return content.find(text) >= 0


def as_proto(model: ir.Model) -> onnx.ModelProto:
    """Return a model as ONNX has it, without the shapes of initializers, which these state themselves.

    Raises:
        InputError: it holds what ONNX cannot, such as words that are not UTF-8.
    """
    try:
        proto = ir.to_proto(model)
    except ir.serde.SerdeError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise InputError(
            f"the graph holds what ONNX files cannot ({first_line(cause)}); export it again"
        ) from error
    for graph in graphs_of(proto.graph):
        stored = {tensor.name for tensor in graph.initializer}
        others = [value for value in graph.value_info if value.name not in stored]
        if len(others) < len(graph.value_info):
            del graph.value_info[:]
            graph.value_info.extend(others)
    return proto


def _external(proto: onnx.ModelProto) -> list[onnx.TensorProto]:
    return [tensor for tensor in tensors_of(proto) if is_external(tensor)]


def _move_out(proto: onnx.ModelProto, staged: Path) -> str:
    """Copy external data to `staged`, let `proto` refer to it there, and return a name for its content."""
    digest = hashlib.sha256()
    with staged.open("wb") as file:
        for tensor in _external(proto):
            source = range_of(tensor)
            file.write(bytes(-file.tell() % _ALIGNMENT))
            refer(tensor, str(staged), file.tell(), source.length)
            for chunk in source.chunks():
                digest.update(chunk)
                file.write(chunk)
    return digest.hexdigest()[:16]
