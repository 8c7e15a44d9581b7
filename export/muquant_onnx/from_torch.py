"""PyTorch to ONNX: trace the model with a placeholder for each compressed weight, then lower those.

Exporting the float model and replacing its initializers afterwards would be fragile: the exporter folds
BatchNorm into weights under the same names, transposes some into unnamed constants and duplicates shared
ones. A placeholder that computes nothing it can fold keeps every weight whole and named.
"""

import copy
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from muquant.artifact import CompressedModel
from muquant.errors import InputError, first_line
from muquant.files import atomic_path
from muquant.layers import quantizable_weights
from muquant_onnx.decode_function import DOMAIN, OPSET
from muquant_onnx.lowering import Policy, Served, check_policy, lower
from muquant_onnx.metadata import add_metadata
from muquant_onnx.packed_weight import PackedWeight

_PLACEHOLDER = "Weight"


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        path: of the file.
        nbytes: its size.
        policy: that was asked for.
        served: how each use of each weight is served.
    """

    path: str
    nbytes: int
    policy: Policy
    served: tuple[Served, ...]


def export_onnx(
    compressed: CompressedModel,
    path: str | os.PathLike[str],
    example: Tensor | Sequence[Tensor],
    policy: str = "auto",
) -> ExportReport:
    """Write `compressed` as an ONNX file (opset 21, IR 10) that stock onnxruntime runs; whole or not at all.

    Args:
        compressed: what `muquant.compress` returned.
        path: of the file.
        example: input of the model, or a sequence of its inputs; the first axis of each is the batch, which
            stays dynamic.
        policy: "float", "int8" or "auto", see `lower`.

    Raises:
        InputError: the policy is unknown, the file cannot be written, or the model cannot be exported.
    """
    asked = check_policy(policy)
    model = trace_placeholders(compressed, example)
    served = fill_placeholders(model, compressed, asked)
    return ExportReport(os.fspath(path), write(model, path), asked, tuple(served))


def trace_placeholders(compressed: CompressedModel, example: Tensor | Sequence[Tensor]) -> ir.Model:
    """Export `compressed` with a node `muquant.Weight <name = ...> ()` for each of its compressed weights."""
    module = copy.deepcopy(compressed.module)
    for weight in quantizable_weights(module):
        name = compressed.aliases.get(weight.name, weight.name)
        if name in compressed.tensors:
            placeholder = _Placeholder(name, tuple(weight.value.shape))
            parametrize.register_parametrization(weight.module, weight.attribute, placeholder, unsafe=True)
    return trace(module, example)


def fill_placeholders(model: ir.Model, compressed: CompressedModel, policy: Policy) -> list[Served]:
    """Replace the placeholders by packed codes and decoders, in place, and describe them in the metadata."""
    packed = {name: PackedWeight.of(quantized) for name, quantized in compressed.tensors.items()}
    weights = {}
    for node in model.graph:
        if node.domain == DOMAIN and node.op_type == _PLACEHOLDER:
            name = node.attributes["name"].as_string()
            weights[node.outputs[0]] = (name, packed[name])
    served = lower(model, weights, policy)
    for value in weights:
        placeholder = value.producer()
        assert placeholder is not None
        model.graph.remove(placeholder, safe=True)
    add_metadata(model, packed, policy, served)
    return served


def export_float(module: nn.Module, path: str | os.PathLike[str], example: Tensor | Sequence[Tensor]) -> int:
    """Write `module` as an ordinary float ONNX file, for comparison; returns its size in bytes."""
    return write(trace(module, example), path)


def trace(module: nn.Module, example: Tensor | Sequence[Tensor]) -> ir.Model:
    """Export by torch's dynamo exporter, the first axis of every input dynamic; no notes on source lines."""
    inputs = (example,) if isinstance(example, Tensor) else tuple(example)
    if not inputs or not all(value.dim() and len(value) for value in inputs):
        found = [tuple(value.shape) for value in inputs]
        raise InputError(f"example inputs of shape {found}; expected tensors whose first axis is the batch")
    batched = tuple(  # a size of 1 would be fixed
        torch.cat((value, value)) if len(value) == 1 else value for value in inputs
    )
    collection: Any = torch.export.ShapesCollection  # torch has no types for it
    shapes = collection()
    for example_input in batched:
        shapes[example_input] = {0: torch.export.Dim.AUTO}
    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)  # its one fused operator has no ONNX form
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own deprecations and notes; failures raise
            program = torch.onnx.export(
                module.eval(),
                batched,
                dynamo=True,
                opset_version=OPSET,
                verbose=False,
                optimize=True,
                dynamic_shapes=shapes.dynamic_shapes(module, batched),
            )
    except Exception as error:
        raise InputError(
            f"torch could not export {type(module).__name__} for inputs of shape "
            f"{[tuple(value.shape) for value in inputs]}: {_reason(error)}; "
            "check that the model runs on the example and that torch.export can trace it"
        ) from error
    finally:
        torch.backends.mha.set_fastpath_enabled(fast_path)
    assert program is not None
    model = program.model
    for node in model.graph.all_nodes():
        node.metadata_props.clear()
        node.doc_string = None
        for output in node.outputs:
            output.metadata_props.clear()
    for value in (*model.graph.inputs, *model.graph.initializers.values()):
        value.metadata_props.clear()
    model.graph.metadata_props.clear()
    model.metadata_props.clear()
    return model


def _reason(error: BaseException) -> str:
    """Return the first line of the error at the root; the exporter's own only say at which step it was."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def write(model: ir.Model, path: str | os.PathLike[str]) -> int:
    """Check `model` by ONNX's full checker and write it; returns the size in bytes."""
    import onnx

    proto = ir.to_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    with atomic_path(path) as temporary:
        return temporary.write_bytes(proto.SerializeToString(deterministic=True))


class _Placeholder(nn.Module):
    """Stands for a weight while the model is traced: a symbolic operator that carries its name."""

    def __init__(self, name: str, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.name, self.shape = name, shape

    def forward(self, _: Tensor) -> Tensor:
        return torch.onnx.ops.symbolic(
            f"{DOMAIN}::{_PLACEHOLDER}",
            (),
            {"name": self.name},
            dtype=torch.float32,
            shape=self.shape,
            version=1,
        )
