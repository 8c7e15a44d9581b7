"""Prove that an exported file computes what the compressed model computes."""

import os
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from muquant.base.errors import InputError
from muquant.compression.artifact import CompressedModel
from muquant.models.calls import Example, Inputs
from muquant_onnx.from_torch.export import export_float
from muquant_onnx.serving.sessions import POLICIES, RUNTIME_SETTINGS, load_session
from muquant_onnx.verification.costs import LoadCost, load_cost
from muquant_onnx.verification.runtimes import RuntimeCheck, _check_runtime, _input_names, _run_torch
from muquant_onnx.verification.weights import WeightCheck, check_weights

Array = NDArray[Any]


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


def _batches(inputs: Inputs, size: int) -> Iterator[Inputs]:
    counts = [len(value) if value.dim() else 0 for value in inputs.tensors]
    if not counts or min(counts) < 1 or len(set(counts)) > 1:
        raise InputError(f"inputs of {counts} examples; expected as many of each, and at least one")
    if size < 1:
        raise InputError(f"batch size is {size}; expected at least 1")
    for start in range(0, counts[0], size):
        yield inputs.rows(start, start + size)
