"""Initializers whose values stay arrays, to be handed to onnxruntime as they are."""

from collections.abc import Callable

import onnx_ir as ir

from muquant_onnx.serving.weights import Array


def initializer(graph: ir.Graph, name: str, make: Callable[[], Array], arrays: dict[str, Array]) -> ir.Value:
    """The initializer `name` of `graph`; its value is made once, kept in `arrays`, and referred to there."""
    if name not in graph.initializers:
        arrays[name] = array = make()
        dtype, shape = ir.DataType.from_numpy(array.dtype), ir.Shape(array.shape)
        tensor = ir.ExternalTensor(name, None, None, dtype, shape=shape, name=name)
        value = ir.Value(name=name, type=ir.TensorType(dtype), shape=shape, const_value=tensor)
        graph.register_initializer(value)
    return graph.initializers[name]
