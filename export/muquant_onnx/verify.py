"""Prove that an exported file computes what the compressed model computes."""

import os
import re
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from onnx_ir.passes.common import RemoveUnusedNodesPass
from torch import Tensor

from muquant.compress import CompressedModel
from muquant.errors import InputError
from muquant_onnx.from_torch import export_float
from muquant_onnx.reference import decode_file, read_model
from muquant_onnx.sessions import RUNTIME_SETTINGS, LoadCost, load_cost, load_session, running_operators

FLOAT_TOLERANCE = 1e-5
INT8_AGREEMENT = 0.998


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
        difference: largest difference over largest output, the worst batch.
        agreement: fraction of inputs with the same argmax of the first output's last axis.
        operators: operator types that run after optimisation, with their number.
        passed: within 1e-5 and agreement 1; where an 8-bit kernel rounds activations, agreement of at least 0.998.
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
        return all(check.passed for check in (*self.weights, *self.runtimes))


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
    served_int8 = "MatMulNBits" in running_operators(path)
    batches = [
        tuple(array[i : i + batch_size] for array in arrays) for i in range(0, len(arrays[0]), batch_size)
    ]
    with torch.inference_mode():
        expected = [_first(compressed.module(*batch)).numpy() for batch in batches]
    runtimes = tuple(
        _check_runtime(path, setting, batches, expected, served_int8) for setting in RUNTIME_SETTINGS
    )
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "float.onnx")
        export_float(compressed.module, plain, [array[:2] for array in arrays])
        return VerifyReport(weights, runtimes, len(arrays[0]), load_cost(path), load_cost(plain))


def check_weights(compressed: CompressedModel, path: str | os.PathLike[str]) -> tuple[WeightCheck, ...]:
    """Decode every weight of the file three ways and compare with `compressed`, bit for bit."""
    proto, metadata = read_model(path)
    expected, found = set(compressed.tensors), set(metadata["weights"])
    if expected != found:
        raise InputError(
            f"{path} holds other weights than the model: {sorted(expected ^ found)[:3]} are on one side only; "
            "name the file that was exported from it"
        )
    by_numpy = decode_file(path)
    values = _decoding_part(ir.from_proto(proto), expected)
    with tempfile.TemporaryDirectory() as folder:
        part = Path(folder, "weights.onnx")
        ir.save(values, part)
        names = [output.name for output in values.graph.outputs]
        runs = [_run_part(part, []), _run_part(part, ["ConstantFolding"])]
    checks = []
    for name, quantized in compressed.tensors.items():
        weight, levels = quantized.dequantize().numpy(), quantized.levels().numpy()

        def same(
            outputs: list[np.ndarray],
            name: str = name,
            weight: np.ndarray = weight,
            levels: np.ndarray = levels,
        ) -> bool:  # type: ignore[type-arg]
            parts = [
                (label[len(name) + 1 :].split(".")[0], value)
                for label, value in zip(names, outputs, strict=True)
                if label is not None and _PART.fullmatch(label.removeprefix(name))
            ]
            return bool(parts) and all(
                np.array_equal(value, levels)
                if part == "levels"
                else _equal_bits(value, weight if part == "decoded" else weight.T)
                for part, value in parts
            )

        checks.append(WeightCheck(name, _equal_bits(by_numpy[name], weight), same(runs[0]), same(runs[1])))
    return tuple(checks)


_PART = re.compile(r"\.(levels|decoded|dequantized)(\.\d+)?")


def _decoding_part(model: ir.Model, names: set[str]) -> ir.Model:
    """Cut `model` down to the nodes that decode weights; integer levels and decoded weights become its outputs."""
    graph = model.graph
    outputs = [
        node.outputs[0]
        for node in graph
        if any(
            (node.outputs[0].name or "").startswith(name)
            and _PART.fullmatch((node.outputs[0].name or "")[len(name) :])
            for name in names
        )
    ]
    graph.outputs.clear()
    graph.outputs.extend(outputs)
    RemoveUnusedNodesPass()(model)
    graph.inputs.clear()
    return model


def _run_part(path: Path, disabled: list[str]) -> list[np.ndarray]:  # type: ignore[type-arg]
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        str(path), options, providers=["CPUExecutionProvider"], disabled_optimizers=disabled
    )
    outputs: list[np.ndarray] = session.run(None, {})  # type: ignore[type-arg]
    return outputs


def _check_runtime(
    path: str | os.PathLike[str],
    setting: str,
    batches: list[tuple[Tensor, ...]],
    expected: list[np.ndarray],  # type: ignore[type-arg]
    served_int8: bool,
) -> RuntimeCheck:
    session = load_session(path, setting)
    names = [entry.name for entry in session.get_inputs()]
    if len(names) != len(batches[0]):
        raise InputError(f"{path} takes {len(names)} inputs, found {len(batches[0])}; give as many arrays")
    difference, agreeing, total = 0.0, 0, 0
    for batch, reference in zip(batches, expected, strict=True):
        try:
            outputs = session.run(
                None, {name: array.numpy() for name, array in zip(names, batch, strict=True)}
            )
        except Exception as error:  # onnxruntime's errors have no common base
            raise InputError(
                f"{path} does not run on these inputs: {str(error).strip().splitlines()[0]}"
            ) from error
        largest = float(np.abs(reference).max(initial=0.0))
        gap = float(np.abs(outputs[0] - reference).max(initial=0.0))
        difference = max(difference, gap / largest if largest else gap)
        same = outputs[0].argmax(-1) == reference.argmax(-1)
        agreeing, total = agreeing + int(same.sum()), total + same.size
    agreement = agreeing / max(total, 1)
    if served_int8 and RUNTIME_SETTINGS[setting].rounds_activations:
        passed = agreement >= INT8_AGREEMENT
    else:
        passed = difference <= FLOAT_TOLERANCE and agreement == 1
    return RuntimeCheck(setting, difference, agreement, running_operators(path, setting), passed)


def _first(output: object) -> Tensor:
    return output if isinstance(output, Tensor) else output[0]  # type: ignore[index, no-any-return]


def _equal_bits(one: np.ndarray, other: np.ndarray) -> bool:  # type: ignore[type-arg]
    return (
        one.shape == other.shape and one.astype(np.float32).tobytes() == np.ascontiguousarray(other).tobytes()
    )
