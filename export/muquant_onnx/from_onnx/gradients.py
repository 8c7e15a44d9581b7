"""A graph in PyTorch, and what its gradients say of errors of its weights."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import onnx_ir as ir
import torch
from torch import Tensor

from muquant.base.errors import InputError
from muquant.compression.budget.gradients import Distortions, Errors, Gradients, OnRun, by_gradients
from muquant_onnx.from_onnx.check import SessionRun
from muquant_onnx.from_onnx.feeds import Batch
from muquant_onnx.from_onnx.find import find_weights
from muquant_onnx.from_onnx.read import read_graph
from muquant_onnx.serving.sessions import load_session
from muquant_onnx.torch_copy import TorchCopy

TOLERANCE = 1e-4
"""How far from onnxruntime's an output of a copy may be, as a share of its largest magnitude."""


def torch_copy(source: Path, batch: Batch) -> tuple[TorchCopy, ir.Model]:
    """Return a file's graph as a module that answers as onnxruntime does, and the graph that it is of.

    Args:
        source: the ONNX file.
        batch: inputs on which both are asked.

    Raises:
        InputError: there is no such copy.
    """
    model = read_graph(source).model
    copy = TorchCopy(model)
    with torch.no_grad():
        found = dict(_run(copy, batch))
    for name, exact in SessionRun(load_session(source))(batch):
        if exact.is_floating_point() and exact.numel():
            if name not in found:
                raise InputError(f"output {name} is not a tensor of its own")
            _compare(name, exact, found[name])
    return copy, model


def graph_gradients(source: Path, batches: Sequence[Batch], on_run: OnRun | None = None) -> Gradients | None:
    """Return what errors of a file's weights do to its answers; None where there is no copy in PyTorch.

    Args:
        source: the ONNX file.
        batches: its inputs, one sample each.
        on_run: called before each of them.
    """
    try:
        copy, model = torch_copy(source, batches[0])
    except InputError:
        return None
    paths = {
        weight.name: copy.path(weight.value)
        for weight in find_weights(model)[0]
        if weight.value in copy.floats
    }

    def gradients(errors: Errors) -> Distortions:
        own = {name: error for name, error in errors.items() if name in paths}
        weights = {name: copy.get_parameter(paths[name]) for name in own}
        try:
            return by_gradients(weights, own, [partial(_run, copy, batch) for batch in batches], on_run)
        except Exception:  # whatever torch raises where an operator has no gradient
            return {}

    return gradients


def _run(copy: TorchCopy, batch: Batch) -> list[tuple[str, Tensor]]:
    outputs = copy(**{name: torch.from_numpy(value) for name, value in batch.feed.items()})
    return list(zip(outputs, batch.own(list(outputs.values())), strict=True))


def _compare(name: str, exact: Tensor, own: Tensor) -> None:
    """Raise `InputError` where an output is not onnxruntime's."""
    if own.shape != exact.shape:
        raise InputError(f"output {name} has the shape {tuple(own.shape)}, not onnxruntime's")
    tells = exact.isfinite()
    apart, largest = (float(each[tells].abs().max()) if tells.any() else 0.0 for each in (own - exact, exact))
    if not apart <= TOLERANCE * largest:
        raise InputError(
            f"output {name} is {apart:.1e} away from onnxruntime's, whose largest magnitude is {largest:.1e}"
        )
