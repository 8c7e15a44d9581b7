"""PyTorch to ONNX: trace the model with a placeholder for each compressed weight, then lower those.

Exporting the float model and replacing its initializers afterwards would be fragile: the exporter folds
BatchNorm into weights under the same names, transposes some into unnamed constants and duplicates shared
ones. A placeholder that computes nothing it can fold keeps every weight whole and named.
"""

import copy
import os
from dataclasses import dataclass

import onnx_ir as ir
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from muquant.base.files import atomic_path
from muquant.compression.artifact import CompressedModel
from muquant.compression.layers import weight_owners
from muquant.models.calls import Example
from muquant_onnx.format.decode_function import DOMAIN
from muquant_onnx.format.metadata import add_metadata
from muquant_onnx.format.packed_weight import PackedWeight
from muquant_onnx.from_torch.tracing import trace
from muquant_onnx.lowering.lower import Policy, Served, check_policy, forms_by_weight, lower

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
    example: Example,
    policy: str = "auto",
) -> ExportReport:
    """Write `compressed` as an ONNX file (opset 21, IR 10) that stock onnxruntime runs; whole or not at all.

    Args:
        compressed: what `muquant.compress` returned.
        path: of the file.
        example: input of the model, a sequence of its inputs, or its inputs by the names of its arguments,
            which become those in the file. The first axis of each is the batch, which stays dynamic where
            the model allows it. Where the model returns a mapping or a dataclass, its fields name the
            outputs, see `output_tensors`.
        policy: "float", "int8", "int4" or "auto", see `lower`.

    Raises:
        InputError: the policy is unknown, the file cannot be written, or the model cannot be exported.
    """
    asked = check_policy(policy)
    model = trace_placeholders(compressed, example)
    served = fill_placeholders(model, compressed, asked)
    return ExportReport(os.fspath(path), write(model, path), asked, tuple(served))


def trace_placeholders(compressed: CompressedModel, example: Example) -> ir.Model:
    """Export `compressed` with a node `muquant.Weight <name = ...> ()` for each of its compressed weights."""
    module = copy.deepcopy(compressed.module)
    for owner in weight_owners(module):
        name = compressed.aliases.get(owner.name, owner.name)
        if name in compressed.tensors:
            placeholder = _Placeholder(name, tuple(owner.value.shape))
            parametrize.register_parametrization(owner.module, owner.attribute, placeholder, unsafe=True)
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
    add_metadata(model, packed, policy, forms_by_weight(served))
    return served


def export_float(module: nn.Module, path: str | os.PathLike[str], example: Example) -> int:
    """Write `module` as an ordinary float ONNX file, for comparison; returns its size in bytes."""
    return write(trace(module, example), path)


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
