"""How far the outputs of a file are from those of the model, under each setting and policy."""

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray

from muquant.base.errors import InputError, first_line
from muquant.compression.artifact import CompressedModel
from muquant.models.calls import Inputs, output_tensors
from muquant_onnx.serving import count_kernels
from muquant_onnx.serving.sessions import RUNTIME_SETTINGS, load_session, running_operators

Array = NDArray[Any]


FLOAT_TOLERANCE = 1e-5
INT8_AGREEMENT = 0.998
INT8_TOLERANCE = 0.05
"""For outputs that are no logits, behind integer kernels: all of them round activations to 8 bits."""
INT8_TIE = 0.02
"""Logits that are so close, as a share of the largest, may change places behind integer kernels."""


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
