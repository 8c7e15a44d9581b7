"""Prove that an exported file computes what the compressed model computes."""

import os
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from muquant.base.errors import InputError, first_line
from muquant.base.files import temporary_folder
from muquant.compression.answers.report import AnswersCheck
from muquant.compression.artifact import CompressedModel
from muquant.models.calls import Example, Inputs, output_tensors, taken_inputs
from muquant_onnx.files.parse import parse
from muquant_onnx.from_torch.export import export_float
from muquant_onnx.serving.sessions import POLICIES
from muquant_onnx.verification.runtimes import (
    Answers,
    RuntimeCheck,
    RuntimeRun,
    check_runtimes,
    chosen_runtimes,
)
from muquant_onnx.verification.weights import WeightCheck, check_weights

Array = NDArray[Any]

BATCHES = 1, 32
"""Inputs at a time whose latency is measured."""


@dataclass(frozen=True)
class VerifyReport:
    """The outcome of `verify` and `verify_onnx`.

    Attributes:
        weights: bit-exactness, for each weight; none beside an ONNX file, which has other weights.
        runtimes: parity, kernels and costs, for each runtime, setting and policy.
        count: inputs that were compared.
        floats: the float file beside it, for each runtime.
        missing: runtimes that are not installed, where all were asked for, and what to install.
        answers: beside the float file's; None for a model, whose answers the file has to give.
    """

    weights: tuple[WeightCheck, ...]
    runtimes: tuple[RuntimeCheck, ...]
    count: int
    floats: tuple[RuntimeRun, ...]
    missing: dict[str, str]
    answers: AnswersCheck | None = None

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
    runtimes: Sequence[str] = ("onnxruntime",),
) -> VerifyReport:
    """Compare an exported file with the compressed model that it was made from.

    Args:
        compressed: the model.
        path: of the ONNX file.
        inputs: what to run both on: a tensor [N, ...], one for each input of the model, or tensors by the
            names of its arguments.
        batch_size: inputs in one run.
        runtimes: names of `RUNTIMES` to run the file under; or "all", those that are installed.

    Raises:
        InputError: the file cannot be read, holds other weights than `compressed`, or takes other inputs, or
            a runtime is unknown or not installed.
    """
    chosen_runtimes(runtimes)  # before any work is done
    given = taken_inputs(compressed.module, Inputs.of(inputs))
    weights = check_weights(compressed, path)
    batches = list(_batches(given, batch_size))
    expected = [_run_torch(compressed, batch) for batch in batches]
    names = _input_names(path, given)
    one = _feed(names, given.rows(0, 1))
    timed = {count: {name: _repeated(value, count) for name, value in one.items()} for count in BATCHES}
    answers = Answers([_feed(names, batch) for batch in batches], expected, timed)
    grids = {tensor.spec.grid_name for tensor in compressed.tensors.values()}
    with temporary_folder() as folder:
        plain = Path(folder, "float.onnx")
        export_float(compressed.module, plain, given.rows(0, 2).example)
        found = check_runtimes(path, plain, policies_for(grids), answers, runtimes)
    return VerifyReport(weights, found.runtimes, len(given.tensors[0]), found.floats, found.missing)


def policies_for(grids: Collection[str]) -> list[str]:
    """The policies that mean anything for weights on these grids."""
    return [policy for policy in POLICIES if policy != "int4" or "int4" in grids]


def _repeated(value: Array, count: int) -> Array:
    return np.resize(value, (count, *value.shape[1:]))


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
