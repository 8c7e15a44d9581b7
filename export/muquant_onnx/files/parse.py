"""Parse an ONNX file without its large tensors."""

import mmap
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx

from muquant.base.errors import InputError, first_line
from muquant.base.reading import open_file
from muquant_onnx.files.external import graphs_of, tensors_of
from muquant_onnx.files.wire import detach, settle


def parse(path: Path) -> onnx.ModelProto:
    """Return the model at `path`; large tensors refer to the file as external data, by its name.

    What onnxruntime passes over is left out, so that no reader need know of it: entries of external data
    where a tensor is not external, raw bytes where it is; and negative sizes, which leave an axis open.

    Raises:
        InputError: the file is missing, or is no whole ONNX file, makes a value twice, or has names
            that are not UTF-8.
    """
    try:
        with (
            open_file(path, "name an ONNX file") as file,
            mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
            memoryview(data) as view,
        ):
            skeleton = detach(view, path.name)
        proto = onnx.ModelProto()
        proto.ParseFromString(skeleton)
        for tensor in tensors_of(proto):
            settle(tensor)
        _name_domain(proto.opset_import)
        for graph in graphs_of(proto):
            _open_sizes(graph)
            _check_names(graph, path)
            _name_domain(graph.node)
            if isinstance(graph, onnx.FunctionProto):
                _name_domain(graph.opset_import)
        return proto
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}; name an ONNX file") from error
    except Exception as error:  # protobuf's own error, and an empty file
        raise InputError(
            f"{path} is not a whole ONNX file ({first_line(error)}); name an ONNX file"
        ) from error


def _check_names(graph: onnx.GraphProto | onnx.FunctionProto, path: Path) -> None:
    """Refuse a graph with two values of one name: readers differ in which of them they take."""
    made = [name for node in graph.node for name in node.output if name]
    if isinstance(graph, onnx.GraphProto):
        made += [tensor.name for tensor in graph.initializer]
        made += [tensor.values.name for tensor in graph.sparse_initializer]
    used = [name for node in graph.node for name in node.input]
    nodes = [name for node in graph.node for name in (node.name, node.op_type, node.domain)]
    if any(isinstance(name, bytes) for name in (*made, *used, *nodes)):
        raise InputError(f"{path} has names that are not UTF-8, as ONNX wants them; export it again")
    if len(made) != len(set(made)):
        twice = next(name for name, count in Counter(made).items() if count > 1)
        raise InputError(f"{path} has two values of the name {twice!r}, expected one; export it again")


def _name_domain(entries: Iterable[onnx.OperatorSetIdProto | onnx.NodeProto]) -> None:
    """Let the standard domain, which has two names, go by one."""
    for entry in entries:
        if entry.domain == "ai.onnx":
            entry.domain = ""


def _open_sizes(graph: onnx.GraphProto | onnx.FunctionProto) -> None:
    """Leave open what the values of `graph` state as a negative size."""
    ends = (*graph.input, *graph.output) if isinstance(graph, onnx.GraphProto) else ()
    for value in (*ends, *graph.value_info):
        for size in _sizes(value.type):
            if size.dim_value < 0:
                size.ClearField("dim_value")


def _sizes(kind: onnx.TypeProto) -> Iterator[onnx.TensorShapeProto.Dimension]:
    """Yield the sizes in a type, those of what a sequence, an optional or a map holds too."""
    for tensor in (kind.tensor_type, kind.sparse_tensor_type):
        yield from tensor.shape.dim
    for name in ("sequence_type", "optional_type"):
        if kind.HasField(name):
            yield from _sizes(getattr(kind, name).elem_type)
    if kind.HasField("map_type"):
        yield from _sizes(kind.map_type.value_type)
