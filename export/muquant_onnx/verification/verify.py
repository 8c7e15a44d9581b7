"""Prove that an exported file computes what the compressed model computes."""

import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from muquant.base.errors import InputError, first_line
from muquant.compression.artifact import CompressedModel
from muquant.models.calls import Example, Inputs, output_tensors, taken_inputs
from muquant_onnx.files.parse import parse
from muquant_onnx.from_torch.export import export_float
from muquant_onnx.serving.sessions import POLICIES
from muquant_onnx.verification.costs import LoadCost, load_cost
from muquant_onnx.verification.runtimes import RuntimeCheck, check_runtimes
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
    given = taken_inputs(compressed.module, Inputs.of(inputs))
    weights = check_weights(compressed, path)
    batches = list(_batches(given, batch_size))
    expected = [_run_torch(compressed, batch) for batch in batches]
    names = _input_names(path, given)
    feeds = [_feed(names, batch) for batch in batches]
    policies = _policies(compressed)
    runtimes = check_runtimes(path, policies, feeds, expected)
    costs = _costs(compressed, path, given, names, policies)
    return VerifyReport(weights, runtimes, len(given.tensors[0]), costs)


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


def _input_names(path: str | os.PathLike[str], inputs: Inputs) -> list[str]:
    """Return the names by which the file takes the tensors of `inputs`, in their order."""
    graph = parse(Path(path)).graph
    stored = {tensor.name for tensor in graph.initializer}
    names = [str(entry.name) for entry in graph.input if entry.name not in stored]
    if inputs.names and set(inputs.names) != set(names):
        raise InputError(f"{path} takes the inputs {names}, found {list(inputs.names)}; give those")
    if len(names) != len(inputs.tensors):
        raise InputError(
            f"{path} takes {len(names)} inputs, found {len(inputs.tensors)}; give as many arrays"
        )
    return list(inputs.names) or names


def _feed(names: Sequence[str], inputs: Inputs) -> dict[str, Array]:
    """Return `inputs` as arrays by name."""
    return {name: value.numpy() for name, value in zip(names, inputs.tensors, strict=True)}


def _policies(compressed: CompressedModel) -> list[str]:
    """The policies that mean anything for the model."""
    grids = {tensor.spec.grid_name for tensor in compressed.tensors.values()}
    return [policy for policy in POLICIES if policy != "int4" or "int4" in grids]


def _costs(
    compressed: CompressedModel,
    path: str | os.PathLike[str],
    inputs: Inputs,
    names: Sequence[str],
    policies: Sequence[str],
) -> dict[str, LoadCost]:
    feed = _feed(names, inputs.rows(0, 1))
    costs = {"file": load_cost(path, feed)}
    costs |= {policy: load_cost(path, feed, policy) for policy in policies}
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder, "float.onnx")
        export_float(compressed.module, plain, inputs.rows(0, 2).example)
        return costs | {"float model": load_cost(plain, feed)}
