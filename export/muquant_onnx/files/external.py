"""Tensors of an ONNX model that lie in files: where, and whether that is allowed."""

import math
from collections.abc import Iterator
from pathlib import Path

import onnx
import onnx_ir as ir

from muquant.base.errors import InputError
from muquant.base.files import beside
from muquant_onnx.files.wire import LARGE, FileRange, embed, is_external, refer


def graphs_of(
    message: onnx.ModelProto | onnx.GraphProto | onnx.FunctionProto,
) -> Iterator[onnx.GraphProto | onnx.FunctionProto]:
    """Yield every graph of a model: the main one, its functions, and their branches and loops."""
    if isinstance(message, onnx.ModelProto):
        for part in (message.graph, *message.functions):
            yield from graphs_of(part)
        return
    yield message
    for node in message.node:
        for attribute in node.attribute:
            for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs):
                yield from graphs_of(graph)


def tensors_of(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield every tensor of a model, in branches, loops and functions too."""
    for graph in graphs_of(model):
        if isinstance(graph, onnx.GraphProto):
            yield from graph.initializer
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t"):
                    yield attribute.t
                yield from attribute.tensors


def sparse_of(model: onnx.ModelProto) -> Iterator[str]:
    """Yield the name of every sparse tensor of a model."""
    for graph in graphs_of(model):
        if isinstance(graph, onnx.GraphProto):
            yield from (tensor.values.name for tensor in graph.sparse_initializer)
        for node in graph.node:
            yield from (node.output[0] for attribute in node.attribute if attribute.HasField("sparse_tensor"))


def locate(model: onnx.ModelProto, path: Path) -> int:
    """Let every external tensor of `model` state a whole path, offset and length, after a look at the file;
    small ones become part of the model. Returns the bytes that it uses of other files than `path`.

    Args:
        model: was read from `path`, and refers to large tensors in `path` itself by its name.
        path: of the model.

    Raises:
        InputError: a file is missing, too short, or not `beside` the model.
    """
    others: set[FileRange] = set()
    files, own = dict[str, tuple[Path, int]](), path.resolve()
    for tensor in tensors_of(model):
        if is_external(tensor):
            found = _range(tensor, path, files)
            if found.length < LARGE:
                embed(tensor, found)
            else:
                refer(tensor, str(found.path), found.offset, found.length)
            if found.path != own:
                others.add(found)
    return sum(other.length for other in others)


def _range(tensor: onnx.TensorProto, path: Path, files: dict[str, tuple[Path, int]]) -> FileRange:
    """Where the bytes of a tensor are; `files` keeps the path and the size of each location."""
    where = f"{path}: the external data of {tensor.name or 'a constant'}"
    entry = {item.key: item.value for item in tensor.external_data}
    location = entry.get("location", "")
    if location not in files:
        file = beside(path, location, where)
        files[location] = file, file.stat().st_size
    file, size = files[location]
    try:
        dtype, numbers = ir.DataType(tensor.data_type), [entry.get("offset", 0), entry.get("length", -1)]
        offset, stated = map(int, numbers)
        if (
            dtype in (ir.DataType.UNDEFINED, ir.DataType.STRING)
            or min(tensor.dims, default=0) < 0
            or offset < 0
        ):
            raise ValueError(tensor)
    except ValueError as error:
        raise InputError(
            f"{where} has no usable type, shape, offset or length; export the model again"
        ) from error
    length = -(-math.prod(tensor.dims) * dtype.bitwidth // 8)
    if stated not in (-1, length) or offset + length > size:
        raise InputError(
            f"{where} should be {length} bytes at {offset} for its shape {list(tensor.dims)}, "
            f"but {file} has {size} bytes and the model states "
            f"{'no length' if stated == -1 else stated}; take a whole copy of the model"
        )
    return FileRange(file, offset, length)
