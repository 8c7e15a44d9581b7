"""How far the outputs of a file are from those of the model, under each setting and policy."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from muquant.base.errors import InputError, first_line
from muquant_onnx.serving.serve import count_kernels
from muquant_onnx.serving.sessions import RUNTIME_SETTINGS, observed_session

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


def check_runtimes(
    path: str | os.PathLike[str],
    policies: Sequence[str],
    feeds: Sequence[Mapping[str, Array]],
    expected: Sequence[Sequence[Array]],
) -> tuple[RuntimeCheck, ...]:
    """Run the file under every setting as onnxruntime loads it, then by every policy; one session each.

    Args:
        path: of a file that muquant wrote.
        policies: names of `POLICIES`.
        feeds: inputs by name, for each batch.
        expected: the model's outputs, for each batch.

    Raises:
        InputError: onnxruntime cannot load or run the file, or it has another number of outputs.
    """
    kernels = {policy: count_kernels(path, policy) for policy in (None, *policies)}
    ways = [*((setting, None) for setting in RUNTIME_SETTINGS), *(("default", policy) for policy in policies)]
    return tuple(
        _check_runtime(path, setting, policy, kernels[policy], feeds, expected) for setting, policy in ways
    )


def _check_runtime(
    path: str | os.PathLike[str],
    setting: str,
    policy: str | None,
    kernels: int,
    feeds: Sequence[Mapping[str, Array]],
    expected: Sequence[Sequence[Array]],
) -> RuntimeCheck:
    """Run the file under one setting and policy; `kernels` of its products should run on integer weights
    where graphs are optimised."""
    observed, chosen = observed_session(path, setting, policy), RUNTIME_SETTINGS[setting]
    count, kernels = len(observed.session.get_outputs()), kernels if chosen.optimize else 0
    if count != len(expected[0]):
        raise InputError(
            f"{path} gives {count} outputs, the model {len(expected[0])}; name the file that was exported "
            "from it"
        )
    rounds = kernels > 0 and chosen.rounds_activations
    difference, agreeing, total = 0.0, 0, 0
    for feed, wanted in zip(feeds, expected, strict=True):
        try:
            outputs = observed.session.run(None, feed)
        except Exception as error:  # onnxruntime's errors have no common base
            raise InputError(f"{path} does not run on these inputs: {first_line(error)}") from error
        difference = max(difference, *map(_difference, outputs, wanted))
        if wanted[0].ndim == 2 and wanted[0].shape[1] > 0:
            total += len(wanted[0])
            agreeing += _agreeing(outputs[0], wanted[0], INT8_TIE if rounds else FLOAT_TOLERANCE)
    agreement = agreeing / total if total else None
    if observed.operators.get("MatMulNBits", 0) != kernels:
        passed = False
    elif not rounds:
        passed = difference <= FLOAT_TOLERANCE and agreement in (1, None)
    elif agreement is None:
        passed = difference <= INT8_TOLERANCE
    else:
        passed = difference < np.inf and agreement >= INT8_AGREEMENT
    return RuntimeCheck(setting, policy, difference, agreement, observed.operators, kernels, passed)


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
