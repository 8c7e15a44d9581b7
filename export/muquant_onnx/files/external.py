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
        InputError: a file is missing, too short, or not `beside` the model; or a tensor holds another number
            of values than its shape says.
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
        else:
            _check_size(tensor, path)
    return sum(other.length for other in others)


def data_files(model: onnx.ModelProto, path: Path) -> frozenset[Path]:
    """Return the files that hold external data of a model at `path`, whole paths; some may be missing.

    Args:
        model: was read from `path`, and refers to large tensors in `path` itself by its name.
        path: of the model.
    """
    places = {
        item.value
        for tensor in tensors_of(model)
        if is_external(tensor)
        for item in tensor.external_data
        if item.key == "location" and "\0" not in item.value
    }
    folders = {path.parent.resolve(), path.resolve().parent}
    files = {(folder / place).resolve() for folder in folders for place in places}
    return frozenset(files - {path.resolve()})


def _check_size(tensor: onnx.TensorProto, path: Path) -> None:
    """Refuse a tensor of the model itself that is not as large as its shape says."""
    try:
        dtype = ir.DataType(tensor.data_type)
    except ValueError as error:
        raise InputError(
            f"{path}: {tensor.name or 'a constant'} is of the type {tensor.data_type}, which ONNX has not; "
            f"export the model again"
        ) from error
    try:
        field = onnx.helper.tensor_dtype_to_field(tensor.data_type)
    except KeyError:  # onnxruntime knows what it is
        return
    count, found, what = math.prod(tensor.dims), len(getattr(tensor, field)), "values"
    if dtype is ir.DataType.STRING:
        what = "texts"
    elif tensor.HasField("raw_data"):
        count, found, what = -(-count * dtype.bitwidth // 8), len(tensor.raw_data), "bytes"
    elif dtype in (ir.DataType.COMPLEX64, ir.DataType.COMPLEX128):
        count *= 2
    elif dtype.bitwidth < 8:
        count = -(-count * dtype.bitwidth // 8)
    if min(tensor.dims, default=0) < 0 or count != found:
        raise InputError(
            f"{path}: {tensor.name or 'a constant'} should hold {count} {what} for its shape "
            f"{list(tensor.dims)}, found {found}; export the model again"
        )


def _range(tensor: onnx.TensorProto, path: Path, files: dict[str, tuple[Path, int]]) -> FileRange:
    """Where the bytes of a tensor are; `files` keeps the path and the size of each location."""
    where = f"{path}: the external data of {tensor.name or 'a constant'}"
    entry = {item.key: item.value for item in tensor.external_data}
    location = entry.get("location", "")
    if location not in files:
        if "\0" in location:
            raise InputError(f"{where} is at {location!r}, no name of a file; export the model again")
        file = beside(path, location, where)
        found = file.stat()
        if found.st_nlink > 1 and file != path.resolve():
            raise InputError(
                f"{where} is at {location!r}, a file of {found.st_nlink} names, the others of which may lie "
                f"outside the model's folder: onnx refuses such hard links too; make it a file of its own: "
                f"cp {location} copy && mv copy {location}"
            )
        files[location] = file, found.st_size
    file, size = files[location]
    try:
        dtype, offset = ir.DataType(tensor.data_type), _number(entry.get("offset", "0"))
        stated = _number(entry["length"]) if "length" in entry else -1
        if dtype in (ir.DataType.UNDEFINED, ir.DataType.STRING) or min(tensor.dims, default=0) < 0:
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


def _number(text: str) -> int:
    """The number that digits stand for; ValueError for all else, which runtimes read one way or another."""
    if not (text.isascii() and text.isdigit()):
        raise ValueError(text)
    return int(text)
