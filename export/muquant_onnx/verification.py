"""Prove that an exported file computes what the compressed model computes."""

import os
import re
import tempfile
from collections.abc import Iterator
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

from muquant.artifact import CompressedModel
from muquant.errors import InputError, first_line
from muquant.inputs import Example, Inputs
from muquant.outputs import output_tensors
from muquant.tensor import QuantizedTensor, spread
from muquant_onnx.from_torch import export_float
from muquant_onnx.load_cost import LoadCost, load_cost
from muquant_onnx.reference import decode_file, read_model
from muquant_onnx.serving import count_kernels
from muquant_onnx.sessions import POLICIES, RUNTIME_SETTINGS, load_session, running_operators

FLOAT_TOLERANCE = 1e-5
INT8_AGREEMENT = 0.998
INT8_TOLERANCE = 0.05
"""For outputs that are no logits, behind integer kernels: all of them round activations to 8 bits."""
INT8_TIE = 0.02
"""Logits that are so close, as a share of the largest, may change places behind integer kernels."""

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
    """How far onnxruntime's outputs are from PyTorch's under one setting and policy, and what runs.

    Attributes:
        setting: a name of `RUNTIME_SETTINGS`.
        policy: a name of `POLICIES` by which the file was loaded; None where onnxruntime loaded it as it is.
        difference: largest difference over largest value of an output, the worst output and batch; infinite
            where shapes differ, or where only one side is finite.
        agreement: fraction of inputs with the same argmax of the first output, where that is [N, classes];
            else None. Classes whose values are within 1e-5 of each other, behind integer kernels within 0.02
            of the largest, are the same.
        operators: operator types that run after optimisation, with their number.
        kernels: how many products should run on kernels of integer weights.
        passed: that many do; within 1e-5 and agreement 1, or, where an integer kernel rounds activations, a
            finite difference and agreement of at least 0.998, or within 0.05 where there are no classes.
    """

    setting: str
    policy: str | None
    difference: float
    agreement: float | None
    operators: dict[str, int]
    kernels: int
    passed: bool


@dataclass(frozen=True)
class VerifyReport:
    """The outcome of `verify`.

    Attributes:
        weights: bit-exactness, for each weight.
        runtimes: parity and kernels, for each runtime setting and policy.
        count: inputs that were compared.
        costs: of loading and running: "file", as onnxruntime loads it; by policy; "float model", beside it.
    """

    weights: tuple[WeightCheck, ...]
    runtimes: tuple[RuntimeCheck, ...]
    count: int
    costs: dict[str, LoadCost]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        checks = (*(check.passed for check in self.weights), *(check.passed for check in self.runtimes))
        return all(checks)


def verify(
    compressed: CompressedModel,
    path: str | os.PathLike[str],
    inputs: Example,
    batch_size: int = 250,
) -> VerifyReport:
    """Compare an exported file with the compressed model that it was made from.

    Args:
        compressed: the model.
        path: of the ONNX file.
        inputs: what to run both on: a tensor [N, ...], one for each input of the model, or tensors by the
            names of its arguments.
        batch_size: inputs in one run.

    Raises:
        InputError: the file cannot be read, holds other weights than `compressed`, or takes other inputs.
    """
    given = Inputs.of(inputs)
    weights = check_weights(compressed, path)
    batches = list(_batches(given, batch_size))
    expected = [_run_torch(compressed, batch) for batch in batches]
    policies = _policies(compressed)
    ways = [*((setting, None) for setting in RUNTIME_SETTINGS), *(("default", policy) for policy in policies)]
    runtimes = tuple(_check_runtime(path, setting, policy, batches, expected) for setting, policy in ways)
    return VerifyReport(weights, runtimes, len(given.tensors[0]), _costs(compressed, path, given, policies))


def _policies(compressed: CompressedModel) -> list[str]:
    """The policies that mean anything for the model."""
    grids = {tensor.spec.grid_name for tensor in compressed.tensors.values()}
    return [policy for policy in POLICIES if policy != "int4" or "int4" in grids]


def _costs(
    compressed: CompressedModel, path: str | os.PathLike[str], inputs: Inputs, policies: list[str]
) -> dict[str, LoadCost]:
    names = _input_names(path, load_session(path), inputs)
    feed = {name: value[:1].numpy() for name, value in zip(names, inputs.tensors, strict=True)}
    costs = {"file": load_cost(path, feed)}
    costs |= {policy: load_cost(path, feed, policy) for policy in policies}
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "float.onnx")
        export_float(compressed.module, plain, inputs.rows(0, 2).example)
        return costs | {"float model": load_cost(plain, feed)}


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


_PART = re.compile(
    r"(?P<weight>.+)\.(?P<part>levels|own_levels|places|own_places|decoded|dequantized|dequantized_places)"
    r"(\.\d+)?",
    re.DOTALL,
)


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
    weight, levels = quantized.dequantize(), quantized.levels()
    places = (levels - 1) // 2
    step = spread(quantized.step, quantized.spec, quantized.shape, quantized.channel_axis)
    wanted = {
        "levels": levels,
        "own_levels": levels,
        "places": places,
        "own_places": places,
        "decoded": weight,
        "dequantized": _matrix(weight, quantized),
        "dequantized_places": _matrix(places.float() * (2 * step), quantized),
    }
    same = []
    for label, value in outputs.items():
        match = _PART.fullmatch(label)
        if match is not None and match["weight"] == name:
            right = wanted[match["part"]].numpy()
            exact = _equal_bits if right.dtype == np.float32 else np.array_equal
            same.append(exact(value, right))
    return bool(same) and all(same)


def _matrix(values: Tensor, quantized: QuantizedTensor) -> Tensor:
    """A weight as a MatMul takes it, [inputs, outputs]."""
    return values.T if quantized.channel_axis == 0 and values.dim() == 2 else values


def _batches(inputs: Inputs, size: int) -> Iterator[Inputs]:
    counts = [len(value) if value.dim() else 0 for value in inputs.tensors]
    if not counts or min(counts) < 1 or len(set(counts)) > 1:
        raise InputError(f"inputs of {counts} examples; expected as many of each, and at least one")
    if size < 1:
        raise InputError(f"batch size is {size}; expected at least 1")
    for start in range(0, counts[0], size):
        yield inputs.rows(start, start + size)


def _run_torch(compressed: CompressedModel, batch: Inputs) -> list[Array]:
    """Return all tensors that the model gives, in the order in which the exporter names them."""
    try:
        with torch.inference_mode():
            output = batch.call(compressed.module)
    except Exception as error:  # whatever the module raises
        raise InputError(
            f"the compressed model does not run on inputs of shape {batch.shapes}: {first_line(error)}; "
            "give what it was trained on"
        ) from error
    return [tensor.numpy() for _, tensor in output_tensors(output)]


def _check_runtime(
    path: str | os.PathLike[str],
    setting: str,
    policy: str | None,
    batches: list[Inputs],
    expected: list[list[Array]],
) -> RuntimeCheck:
    session, operators = load_session(path, setting, policy=policy), running_operators(path, setting, policy)
    kernels = count_kernels(path, policy) if RUNTIME_SETTINGS[setting].optimize else 0
    names = _input_names(path, session, batches[0])
    if len(session.get_outputs()) != len(expected[0]):
        raise InputError(
            f"{path} gives {len(session.get_outputs())} outputs, the model {len(expected[0])}; "
            "name the file that was exported from it"
        )
    rounds = kernels > 0 and RUNTIME_SETTINGS[setting].rounds_activations
    difference, agreeing, total = 0.0, 0, 0
    for batch, wanted in zip(batches, expected, strict=True):
        feed = {name: value.numpy() for name, value in zip(names, batch.tensors, strict=True)}
        try:
            outputs = session.run(None, feed)
        except Exception as error:  # onnxruntime's errors have no common base
            raise InputError(f"{path} does not run on these inputs: {first_line(error)}") from error
        difference = max(difference, *map(_difference, outputs, wanted))
        if wanted[0].ndim == 2 and wanted[0].shape[1] > 0:
            total += len(wanted[0])
            agreeing += _agreeing(outputs[0], wanted[0], INT8_TIE if rounds else FLOAT_TOLERANCE)
    agreement = agreeing / total if total else None
    if operators.get("MatMulNBits", 0) != kernels:
        passed = False
    elif not rounds:
        passed = difference <= FLOAT_TOLERANCE and agreement in (1, None)
    elif agreement is None:
        passed = difference <= INT8_TOLERANCE
    else:
        passed = difference < np.inf and agreement >= INT8_AGREEMENT
    return RuntimeCheck(setting, policy, difference, agreement, operators, kernels, passed)


def _input_names(path: str | os.PathLike[str], session: ort.InferenceSession, batch: Inputs) -> list[str]:
    """Return the names by which the session takes the tensors of `batch`, in their order."""
    names = [str(entry.name) for entry in session.get_inputs()]
    if batch.names and set(batch.names) != set(names):
        raise InputError(f"{path} takes the inputs {names}, found {list(batch.names)}; give those")
    if len(names) != len(batch.tensors):
        raise InputError(f"{path} takes {len(names)} inputs, found {len(batch.tensors)}; give as many arrays")
    return list(batch.names) or names


def _agreeing(found: Array, wanted: Array, tie: float) -> int:
    """Return how many rows of logits [N, classes] have the same argmax, up to equal ones.

    Args:
        found, wanted: the logits.
        tie: how close equal ones are, as a share of the largest.
    """
    if found.shape != wanted.shape:
        return 0
    chosen = np.take_along_axis(wanted, found.argmax(1)[:, None], 1)[:, 0]
    largest = float(np.abs(wanted[np.isfinite(wanted)]).max(initial=0.0))
    worse = chosen < wanted.max(1) - tie * largest
    return len(wanted) - int(worse.sum())


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
