"""Hand a graph to onnxruntime together with arrays that are in memory or in files already."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort

from muquant_onnx.files.external import tensors_of
from muquant_onnx.files.wire import embed, is_external, range_of
from muquant_onnx.serving.weights import Array


@dataclass(frozen=True, eq=False)
class Handed:
    """What a session is made of.

    Attributes:
        graph: a serialized model, which refers to its large initializers by their names.
        values: these, for `SessionOptions.add_external_initializers`.
    """

    graph: bytes
    values: Mapping[str, ort.OrtValue]


def hand_over(proto: onnx.ModelProto, arrays: Mapping[str, Array]) -> Handed:
    """Serialize a model, whose initializers named in `arrays` have those values.

    Other tensors that lie in files are mapped, or, in branches and loops, become part of the graph.
    """
    values = {}
    mapped = {tensor.name: tensor for tensor in proto.graph.initializer if is_external(tensor)}
    for tensor in tensors_of(proto):
        if not is_external(tensor):
            continue
        if mapped.get(tensor.name) is not tensor:  # in a branch or a loop
            embed(tensor, range_of(tensor))
        elif tensor.name in arrays:
            values[tensor.name] = _value(arrays[tensor.name], tensor.data_type)
        elif ir.DataType(tensor.data_type).itemsize >= 1:
            values[tensor.name] = _value(_mapped(tensor), tensor.data_type)
        else:
            embed(tensor, range_of(tensor))
    return Handed(proto.SerializeToString(), values)


def _value(array: Array, dtype: int) -> ort.OrtValue:
    return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(np.ascontiguousarray(array), dtype)


def _mapped(tensor: onnx.TensorProto) -> Array:
    """The values of a tensor that lies in a file."""
    place, dtype = range_of(tensor), ir.DataType(tensor.data_type).numpy()
    if not math.prod(tensor.dims):
        return np.empty(tuple(tensor.dims), dtype)
    array: Array = np.memmap(place.path, dtype, "r", place.offset, tuple(tensor.dims))
    return array
