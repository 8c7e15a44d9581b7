"""Prove that an exported file computes what the compressed model computes."""

import os
import re
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor
from torch.utils._pytree import tree_leaves

from muquant.artifact import CompressedModel
from muquant.errors import InputError, first_line
from muquant.tensor import QuantizedTensor
from muquant_onnx.from_torch import export_float
from muquant_onnx.reference import decode_file, read_model
from muquant_onnx.sessions import RUNTIME_SETTINGS, LoadCost, load_cost, load_session, running_operators

FLOAT_TOLERANCE = 1e-5
INT8_AGREEMENT = 0.998

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


@dataclass(frozen=True)
class RuntimeCheck:
    """How far onnxruntime's outputs are from PyTorch's under one setting.

    Attributes:
        setting: a name of `RUNTIME_SETTINGS`.
        difference: largest difference over largest value of an output, the worst output and batch; infinite
            where shapes differ, or where only one side is finite.
        agreement: fraction of inputs with the same argmax of the first output's last axis.
        operators: operator types that run after optimisation, with their number.
        passed: within 1e-5 and agreement 1; where an 8-bit kernel rounds activations, a finite difference and
            agreement of at least 0.998.
    """

    setting: str
    difference: float
    agreement: float
    operators: dict[str, int]
    passed: bool


@dataclass(frozen=True)
class VerifyReport:
    """The outcome of `verify`.

    Attributes:
        weights: bit-exactness, for each weight.
        runtimes: parity, for each runtime setting.
        count: inputs that were compared.
        cost: of loading the file.
        float_cost: of loading the float model beside it.
    """

    weights: tuple[WeightCheck, ...]
    runtimes: tuple[RuntimeCheck, ...]
    count: int
    cost: LoadCost
    float_cost: LoadCost

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        checks = (*(check.passed for check in self.weights), *(check.passed for check in self.runtimes))
        return all(checks)


def verify(
    compressed: CompressedModel,
    path: str | os.PathLike[str],
    inputs: Tensor | Sequence[Tensor],
    batch_size: int = 250,
) -> VerifyReport:
    """Compare an exported file with the compressed model that it was made from.

    Args:
        compressed: the model.
        path: of the ONNX file.
        inputs: what to run both on: a tensor [N, ...], or one for each input of the model.
        batch_size: inputs in one run.

    Raises:
        InputError: the file cannot be read, holds other weights than `compressed`, or takes other inputs.
    """
    arrays = (inputs,) if isinstance(inputs, Tensor) else tuple(inputs)
    weights = check_weights(compressed, path)
    batches = list(_batches(arrays, batch_size))
    expected = [_run_torch(compressed, batch) for batch in batches]
    operators = {setting: running_operators(path, setting) for setting in RUNTIME_SETTINGS}
    runtimes = tuple(
        _check_runtime(path, setting, batches, expected, running) for setting, running in operators.items()
    )
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "float.onnx")
        export_float(compressed.module, plain, [array[:2] for array in arrays])
        return VerifyReport(weights, runtimes, len(arrays[0]), load_cost(path), load_cost(plain))


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
    by_numpy = decode_file(path)
    model = ir.from_proto(proto)
    ir.external_data.set_base_dir(model.graph, Path(path).parent)
    values = _decoding_part(model, set(by_numpy))
    with tempfile.TemporaryDirectory() as folder:
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


_PART = re.compile(r"(?P<weight>.+)\.(?P<part>levels|own_levels|decoded|dequantized)(\.\d+)?", re.DOTALL)


def _decoding_part(model: ir.Model, weights: set[str]) -> ir.Model:
    """Cut `model` down to the nodes that decode weights; levels and decoded weights are its outputs."""
    graph = model.graph
    outputs = []
    for node in graph:
        match = _PART.fullmatch(str(node.outputs[0].name))
        if match is not None and match["weight"] in weights:
            outputs.append(node.outputs[0])
    graph.outputs.clear()
    graph.outputs.extend(outputs)
    RemoveUnusedNodesPass()(model)
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
    weight, levels = quantized.dequantize().numpy(), quantized.levels().numpy()
    matrix = weight.T if quantized.channel_axis == 0 else weight  # [inputs, outputs], as a MatMul takes it
    wanted = {"levels": levels, "own_levels": levels, "decoded": weight, "dequantized": matrix}
    same = []
    for label, value in outputs.items():
        match = _PART.fullmatch(label)
        if match is not None and match["weight"] == name:
            right = wanted[match["part"]]
            integer = "levels" in match["part"]
            same.append(np.array_equal(value, right) if integer else _equal_bits(value, right))
    return bool(same) and all(same)


def _batches(arrays: tuple[Tensor, ...], size: int) -> Iterator[tuple[Tensor, ...]]:
    counts = [len(array) if array.dim() else 0 for array in arrays]
    if not counts or min(counts) < 1 or len(set(counts)) > 1:
        raise InputError(f"inputs of {counts} examples; expected as many of each, and at least one")
    if size < 1:
        raise InputError(f"batch size is {size}; expected at least 1")
    for start in range(0, counts[0], size):
        yield tuple(array[start : start + size] for array in arrays)


def _run_torch(compressed: CompressedModel, batch: tuple[Tensor, ...]) -> list[Array]:
    """Return all tensors that the model gives, in the order in which the exporter names them."""
    try:
        with torch.inference_mode():
            output = compressed.module(*batch)
    except Exception as error:  # whatever the module raises
        shapes = [tuple(array.shape) for array in batch]
        raise InputError(
            f"the compressed model does not run on inputs of shape {shapes}: {first_line(error)}; "
            "give what it was trained on"
        ) from error
    leaves = tree_leaves(output)
    return [leaf.numpy() for leaf in leaves if isinstance(leaf, Tensor)]


def _check_runtime(
    path: str | os.PathLike[str],
    setting: str,
    batches: list[tuple[Tensor, ...]],
    expected: list[list[Array]],
    operators: dict[str, int],
) -> RuntimeCheck:
    session = load_session(path, setting)
    names = [entry.name for entry in session.get_inputs()]
    if len(names) != len(batches[0]):
        raise InputError(f"{path} takes {len(names)} inputs, found {len(batches[0])}; give as many arrays")
    if len(session.get_outputs()) != len(expected[0]):
        raise InputError(
            f"{path} gives {len(session.get_outputs())} outputs, the model {len(expected[0])}; "
            "name the file that was exported from it"
        )
    difference, agreeing, total = 0.0, 0, 0
    for batch, wanted in zip(batches, expected, strict=True):
        try:
            outputs = session.run(None, {name: x.numpy() for name, x in zip(names, batch, strict=True)})
        except Exception as error:  # onnxruntime's errors have no common base
            raise InputError(f"{path} does not run on these inputs: {first_line(error)}") from error
        difference = max(difference, *map(_difference, outputs, wanted))
        total += max(wanted[0][..., :1].size, 1)
        if outputs[0].shape == wanted[0].shape and wanted[0].size:
            agreeing += int((outputs[0].argmax(-1) == wanted[0].argmax(-1)).sum())
    agreement = agreeing / total
    if "MatMulNBits" in operators and RUNTIME_SETTINGS[setting].rounds_activations:
        passed = difference < np.inf and agreement >= INT8_AGREEMENT
    else:
        passed = difference <= FLOAT_TOLERANCE and agreement == 1
    return RuntimeCheck(setting, difference, agreement, operators, passed)


def _difference(found: Array, wanted: Array) -> float:
    """Return the largest difference over the largest finite value; infinite where only one is finite."""
    if found.shape != wanted.shape:
        return float("inf")
    one, other = found.astype(np.float64), wanted.astype(np.float64)
    finite = np.isfinite(other)
    alike = np.array_equal(one[~finite], other[~finite], equal_nan=True)
    if not alike or not np.isfinite(one[finite]).all():
        return float("inf")
    gap = float(np.abs(one[finite] - other[finite]).max(initial=0.0))
    largest = float(np.abs(other[finite]).max(initial=0.0))
    return gap / largest if largest else gap


def _equal_bits(one: Array, other: Array) -> bool:
    return (
        one.shape == other.shape
        and one.dtype == other.dtype
        and one.tobytes() == np.ascontiguousarray(other).tobytes()
    )
