"""Write a model, whole or not at all, without ever holding it in memory."""

import hashlib
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import onnx
import onnx_ir as ir

from muquant.base.files import atomic_path
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
    overwritten, and a model that is being replaced is whole at any time.

    Args:
        model: to write.
        path: of the ONNX file.
        scratch: a folder on the same file system, for files that are not done.

    Raises:
        InputError: a file cannot be written, or neither onnx nor onnxruntime takes the model.
    """
    proto = as_proto(model)
    check(proto, path)
    pieces = attach(proto.SerializeToString(deterministic=True))
    if total(pieces) <= INLINE_LIMIT:
        with atomic_path(path) as temporary, temporary.open("wb") as file:
            write_pieces(file, pieces)
        return Written(total(pieces), None)
    staged = scratch / "data"
    digest = _move_out(proto, staged)
    data = path.with_name(f"{path.stem}.{digest}.data")
    for tensor in _external(proto):
        part = range_of(tensor)
        refer(tensor, data.name, part.offset, part.length)
    nbytes, is_new = staged.stat().st_size, not data.exists()
    with ExitStack() as undo:
        with atomic_path(path) as temporary:
            nbytes += temporary.write_bytes(proto.SerializeToString(deterministic=True))
            with atomic_path(data) as inner:
                staged.replace(inner)
            if is_new:
                undo.callback(data.unlink)
        undo.pop_all()
    return Written(nbytes, data)


def as_proto(model: ir.Model) -> onnx.ModelProto:
    """Return a model as ONNX has it, without the shapes of initializers, which these state themselves."""
    proto = ir.to_proto(model)
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
