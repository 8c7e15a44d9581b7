"""Whether the weights of a file are those of the model, bit for bit, however they are decoded."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch import Tensor

from muquant.base.errors import InputError, first_line
from muquant.base.files import temporary_folder
from muquant.compression.artifact import CompressedModel
from muquant.format.rows import spread
from muquant.format.tensor import QuantizedTensor
from muquant_onnx.files.external import locate
from muquant_onnx.format.names import Part, parse_label
from muquant_onnx.format.packed_weight import PackedWeight
from muquant_onnx.format.reference import decode_model, read_model
from muquant_onnx.serving.matmul_nbits import kernel_weight
from muquant_onnx.serving.weights import Decoded

Array = NDArray[Any]


@dataclass(frozen=True)
class WeightCheck:
    """Whether one weight is the same, bit for bit, wherever it is decoded.

    Attributes:
        name: of the weight.
        numpy: decoded from the file's bytes by numpy.
        folded: decoded by onnxruntime while it loads.
        unfolded: decoded by onnxruntime while it runs.
    """

    name: str
    numpy: bool
    folded: bool
    unfolded: bool

    @property
    def passed(self) -> bool:
        """All of them."""
        return self.numpy and self.folded and self.unfolded


def check_weights(compressed: CompressedModel, path: str | os.PathLike[str]) -> tuple[WeightCheck, ...]:
    """Decode every weight of the file three ways and compare with `compressed`, bit for bit.

    Raises:
        InputError: the file cannot be read, holds other weights than `compressed`, or cannot decode them.
    """
    proto, metadata = read_model(path)
    expected, found = set(compressed.tensors), {*metadata["weights"], *metadata["unused"]}
    if expected != found:
        raise InputError(
            f"{path} holds other weights than the model: {sorted(expected ^ found)[:3]} are on one side "
            "only; name the file that was exported from it"
        )
    by_numpy = decode_model(proto, metadata, path)
    if not by_numpy:
        return ()
    locate(proto, Path(path))
    model = ir.from_proto(proto)
    values = _decoding_part(model, set(by_numpy))
    with temporary_folder() as folder:
        part = Path(folder, "weights.onnx")
        ir.save(values, part)
        names = [str(output.name) for output in values.graph.outputs]
        folded = _run_part(path, part, names, [])
        unfolded = _run_part(path, part, names, ["ConstantFolding"])
    return tuple(
        WeightCheck(
            name,
            _equal_bits(decoded, compressed.tensors[name].dequantize().numpy()),
            _same(compressed.tensors[name], name, folded),
            _same(compressed.tensors[name], name, unfolded),
        )
        for name, decoded in by_numpy.items()
    )


def _decoding_part(model: ir.Model, weights: set[str]) -> ir.Model:
    """Cut `model` down to the nodes that decode weights; levels and decoded weights are its outputs."""
    graph = model.graph
    outputs = []
    for node in graph:
        found = parse_label(node.outputs[0].name)
        if found is not None and found.part in _DECODING and found.weight in weights:
            outputs.append(node.outputs[0])
    graph.outputs.clear()
    graph.outputs.extend(outputs)
    needed: set[ir.Node] = set()
    wanted = [node for node in map(ir.Value.producer, outputs) if node is not None]
    while wanted:
        node = wanted.pop()
        if node not in needed:
            needed.add(node)
            wanted += [each for each in (value and value.producer() for value in node.inputs) if each]
    graph.remove([node for node in graph if node not in needed])
    graph.inputs.clear()
    return ir.external_data.load_to_model(model)


def _run_part(
    path: str | os.PathLike[str], part: Path, names: list[str], disabled: list[str]
) -> dict[str, Array]:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    try:
        session = ort.InferenceSession(
            str(part), options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
        )
        return dict(zip(names, session.run(names, {}), strict=True))
    except Exception as error:  # onnxruntime's errors have no common base
        raise InputError(
            f"onnxruntime cannot decode the weights of {path}: {first_line(error)}; export it again"
        ) from error


def _same(quantized: QuantizedTensor, name: str, outputs: dict[str, Array]) -> bool:
    """Whether every output that decodes the weight `name` is what it should be; there is at least one."""
    same = []
    for output, value in outputs.items():
        found = parse_label(output)
        if found is not None and found.weight == name:
            right = _DECODING[found.part](quantized).numpy()
            exact = _equal_bits if right.dtype == np.float32 else np.array_equal
            same.append(exact(value, right))
    return bool(same) and all(same)


def _places(quantized: QuantizedTensor) -> Tensor:
    return (quantized.levels() - 1) // 2


def _matrix(values: Tensor, quantized: QuantizedTensor) -> Tensor:
    """A weight as a MatMul takes it, [inputs, outputs]."""
    return values.T if quantized.channels.axis == 0 and values.dim() == 2 else values


def _dequantized(quantized: QuantizedTensor) -> Tensor:
    return _matrix(quantized.dequantize(), quantized)


def _dequantized_places(quantized: QuantizedTensor) -> Tensor:
    step = spread(quantized.step, quantized.spec, quantized.shape, quantized.channels)
    return _matrix(_places(quantized).float() * (2 * step), quantized)


def _kernel_codes(quantized: QuantizedTensor) -> Tensor:
    """What onnxruntime's operator takes: of 4 bits where the file holds rows of outputs on the int4 grid."""
    spec, axis = quantized.spec, quantized.channels.axis
    bits: Literal[4, 8] = 4 if spec.grid_name == "int4" and axis == 0 else 8
    places = bits == 4 and spec.level_grid.odd
    return torch.from_numpy(kernel_weight(Decoded(PackedWeight.of(quantized)), bits, places=places).codes)


_DECODING: dict[Part, Callable[[QuantizedTensor], Tensor]] = {
    Part.LEVELS: QuantizedTensor.levels,
    Part.OWN_LEVELS: QuantizedTensor.levels,
    Part.PLACES: _places,
    Part.OWN_PLACES: _places,
    Part.KERNEL_CODES: _kernel_codes,
    Part.DECODED: QuantizedTensor.dequantize,
    Part.DEQUANTIZED: _dequantized,
    Part.DEQUANTIZED_PLACES: _dequantized_places,
}
"""The parts that are outputs of nodes which decode, and what each should be."""


def _equal_bits(one: Array, other: Array) -> bool:
    return (
        one.shape == other.shape
        and one.dtype == other.dtype
        and one.tobytes() == np.ascontiguousarray(other).tobytes()
    )
