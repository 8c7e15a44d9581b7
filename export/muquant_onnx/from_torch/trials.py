"""Try other sizes: does the model take them, and does the file answer there as the model does?"""

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
import sympy
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from muquant.base.errors import InputError, first_line
from muquant.models.calls import Inputs, evaluation_mode, output_tensors
from muquant_onnx.from_torch.axes import Axes, few
from muquant_onnx.serving.sessions import load_session, silent_run

_EXAMPLES = 2
_VALUES = 1 << 20
"""Of all inputs together: no more are tried, but at twice the size of the example."""
_TIES = 0.01
"""Share of integers that may differ: where two numbers are nearly the same either may be the largest."""


@dataclass(frozen=True, eq=False)
class Trial:
    """What the model answers at one size.

    Attributes:
        symbol: whose size is another one than in the example; None for the example itself.
        values: of all symbols.
        inputs: of these sizes.
        outputs: all tensors of the answer.
    """

    symbol: sympy.Symbol | None
    values: dict[sympy.Symbol, int]
    inputs: Inputs
    outputs: tuple[Tensor, ...]


def try_sizes(module: nn.Module, axes: Axes) -> tuple[Axes, list[Trial]]:
    """Run a module at other sizes, one symbol at a time, and fix what it takes at none. It is tied to others
    instead where the module takes that, see `Axes.ties`.

    A size beyond what torch.export found the program to be for is tried too: where the model takes it, by
    another path, a file that does not know of that would be wrong.

    Returns:
        The axes that are left, and trials of them, that of the example first; none where it does not run.

    Raises:
        InputError: an axis that was asked to be dynamic is fixed.
    """
    values = axes.values
    small = {symbol: min(size, _EXAMPLES) if axes.counts(symbol) else size for symbol, size in values.items()}
    for base in (small, values):
        first = _try(module, axes, base, None)
        if isinstance(first, Trial):
            break
    else:
        return few(axes, f"the model does not run on the example: {first}"), []
    trials = [first]
    for symbol in base:
        if symbol not in axes.values:
            continue
        taken, why = _other_sizes(module, axes, base, symbol)
        for tied in axes.ties(symbol) if why else ():
            if not _other_sizes(module, tied, base, symbol)[1]:
                return try_sizes(module, tied)
        trials += taken
        if why:
            axes = axes.without(symbol, why)
    return axes, trials


def check_sizes(
    path: str | os.PathLike[str], policy: str | None, module: nn.Module, axes: Axes, trials: Sequence[Trial]
) -> tuple[Axes, dict[int, set[int]]]:
    """Run a file at the sizes of `trials`, and fix the axes along which it does not answer as the model did.

    They are tied to others instead, see `Axes.ties`, where it answers then: a model may take any two sizes
    where its mask masks nothing, and its graph does not.

    Args:
        path: of the ONNX file.
        policy: by which it is served; None to leave that to onnxruntime.
        module: the model.
        axes: that are dynamic in the file.
        trials: of the model.

    Returns:
        The axes that are left, or have to be tried again; and output -> axes whose size is not the one that
        the file states.

    Raises:
        InputError: an axis that was asked to be dynamic is fixed.
    """
    if len(trials) < 2:
        return axes, {}
    try:
        session = load_session(path, "accuracy-1", policy=policy)
    except InputError as error:
        return few(axes, f"the file was not tried at other sizes: {error}"), {}
    stated = [output.shape for output in session.get_outputs()]
    other: dict[int, set[int]] = {}
    settled: set[sympy.Symbol] = set()
    for trial in trials[1:]:
        symbol = trial.symbol
        if symbol not in axes.values or symbol in settled:
            continue
        wrong = _difference(session, trial)
        if wrong:
            alike = _difference(session, trials[0])
            if alike:
                return few(axes, f"already at the example's size the file {alike}"), {}
            together = _tied(session, module, axes, trial)
            if together is None:
                axes = axes.without(symbol, f"at size {trial.values[symbol]} the file {wrong}")
            else:
                axes = together
                settled.add(symbol)
        for output, (tensor, shape) in enumerate(zip(trial.outputs, stated, strict=True)):
            sizes = zip(tensor.shape, shape, strict=True)
            other.setdefault(output, set()).update(
                axis for axis, (size, known) in enumerate(sizes) if isinstance(known, int) and known != size
            )
    return axes, other


def _tied(session: ort.InferenceSession, module: nn.Module, axes: Axes, trial: Trial) -> Axes | None:
    """Return axes of which others change with the symbol of a trial, and both model and file do that."""
    assert trial.symbol is not None
    for tied in axes.ties(trial.symbol):
        again = _try(module, tied, trial.values, trial.symbol)
        if isinstance(again, Trial) and not _difference(session, again):
            return tied
    return None


def _other_sizes(
    module: nn.Module, axes: Axes, base: dict[sympy.Symbol, int], symbol: sympy.Symbol
) -> tuple[list[Trial], str]:
    """Try other sizes for a symbol; return those that the module takes, and why it is to be fixed, if it is.

    That a pooled size is rounded makes nothing dynamic, so twice or half the size has to do. Of the number of
    examples one more will do.
    """
    size, wanted, (low, high) = base[symbol], axes.wanted(symbol), axes.ranges.get(symbol, (2, None))
    least, most = (1, None) if wanted is None else (wanted.least, wanted.most)
    trials: dict[int, Trial | str] = {}

    def taken(other: int) -> bool:
        if other != size and least <= other and (most is None or other <= most):
            if other not in trials:
                trials[other] = _try(module, axes, base | {symbol: other}, symbol)
            return isinstance(trials[other], Trial)
        return False

    far = any(map(taken, (size + 1, 2 * size) if axes.counts(symbol) else (2 * size, size // 2)))
    errors = [f"the model does not take size {other}: {error}" for other, error in trials.items()]
    if not axes.counts(symbol):
        _ = taken(size + 1) or taken(size - 1)
    for edge in (1, low - 1, *([] if high is None else [high + 1])):
        taken(edge)
    held = [trial for trial in trials.values() if isinstance(trial, Trial)]
    if far or not errors:
        return held, ""
    return held, errors[0]


def _try(
    module: nn.Module, axes: Axes, values: dict[sympy.Symbol, int], symbol: sympy.Symbol | None
) -> Trial | str:
    """Run a module on inputs of some size; return what it answers, or why it does not."""
    inputs = axes.resized(values)
    if inputs is None:
        return "an axis would be empty"
    count, own = (sum(tensor.numel() for tensor in each.tensors) for each in (inputs, axes.inputs))
    if count > max(4 * own, _VALUES):
        return f"{count:,} values are too many to try"
    try:
        with torch.inference_mode(), evaluation_mode(module):
            outputs = tuple(tensor for _, tensor in output_tensors(inputs.call(module)))
    except Exception as error:  # whatever the module raises
        return first_line(error)
    return Trial(symbol, values, inputs, outputs)


def _difference(session: ort.InferenceSession, trial: Trial) -> str:
    """Say how the answer of a file differs from the model's; nothing where it does not."""
    names = trial.inputs.names or tuple(entry.name for entry in session.get_inputs())
    try:
        feed = {name: tensor.numpy() for name, tensor in zip(names, trial.inputs.tensors, strict=True)}
        answers, expected = (
            session.run(None, feed, silent_run()),
            [tensor.numpy() for tensor in trial.outputs],
        )
    except Exception as error:  # of onnxruntime, or a type that numpy does not have
        return f"does not run: {first_line(error)}"
    for found, wanted in zip(answers, expected, strict=True):
        if found.shape != wanted.shape:
            return f"answers {found.shape}, the model {wanted.shape}"
        if not _close(found, wanted):
            return "answers otherwise than the model"
    return ""


def _close(found: NDArray[np.generic], wanted: NDArray[np.generic]) -> bool:
    """Whether numbers are the same but for the order of their sums."""
    if not np.issubdtype(wanted.dtype, np.inexact):
        return bool(np.mean(found != wanted) <= _TIES) if wanted.size else True
    scale = float(np.max(np.abs(wanted), initial=0, where=np.isfinite(wanted)))
    tolerance = 0.03 if wanted.dtype.itemsize < 4 else 1e-3
    return np.allclose(found, wanted, rtol=0, atol=tolerance * scale, equal_nan=True)
