"""PyTorch to ONNX: trace the model with a placeholder for each compressed weight, then lower those.

Exporting the float model and replacing its initializers afterwards would be fragile: the exporter folds
BatchNorm into weights under the same names, transposes some into unnamed constants and duplicates shared
ones. A placeholder that computes nothing it can fold keeps every weight whole and named.
"""

import copy
import os
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeVar

import onnx_ir as ir
from torch import nn

from muquant.base.files import scratch_folder, write_bytes
from muquant.compression.artifact import CompressedModel
from muquant.compression.left import LeftFloat
from muquant.models.calls import Example, Inputs, taken_inputs
from muquant.models.wrappers import peeled
from muquant_onnx.files.write import as_proto
from muquant_onnx.format.metadata import add_metadata
from muquant_onnx.format.packed_weight import PackedWeight
from muquant_onnx.from_torch.asked import DynamicShapes, Place
from muquant_onnx.from_torch.axes import Axes, find_axes
from muquant_onnx.from_torch.names import InputAxis, describe_axes, forget_sizes, name_sizes
from muquant_onnx.from_torch.placing import find_placed, place
from muquant_onnx.from_torch.tracing import trace
from muquant_onnx.from_torch.trials import check_sizes, try_sizes
from muquant_onnx.lowering.lower import Policy, Served, forms_by_weight
from muquant_onnx.lowering.targets import Target, choose_target, lower_for

_Built = TypeVar("_Built")


@dataclass(frozen=True)
class ExportReport:
    """What was written.

    Attributes:
        path: of the file.
        nbytes: its size.
        policy: that was asked for.
        served: how each use of each weight is served.
        axes: every axis of every input, and whether it is dynamic.
        left_float: compressed weights that are in the file as float32 all the same, and why.
    """

    path: str
    nbytes: int
    policy: Policy
    served: tuple[Served, ...]
    axes: tuple[InputAxis, ...]
    left_float: tuple[LeftFloat, ...] = ()


def export_onnx(
    compressed: CompressedModel,
    path: str | os.PathLike[str],
    example: Example,
    policy: str | None = None,
    dynamic_shapes: DynamicShapes | None = None,
    *,
    target: str = "onnxruntime",
    functions: bool | None = None,
) -> ExportReport:
    """Write `compressed` as an ONNX file (opset 21, IR 10) that stock onnxruntime runs; whole or not at all.

    Every axis of an input is dynamic where torch.export can keep it so, the model takes another size there,
    and the file was run by onnxruntime at one, and at size 1, with the model's answer. The report says of any
    other axis why it is not.

    Args:
        compressed: what `muquant.compress` returned.
        path: of the file.
        example: input of the model, a sequence of its inputs, or its inputs by the names of its arguments,
            which become those in the file, see `Example`. The first axis of each is the batch. Floats of
            another precision are float32 in the file, as the weights are, if the model takes no other. Where
            the model returns a mapping or a dataclass, its fields name the outputs, see `output_tensors`.
        policy: "float", "int8", "int4" or "auto", see `lower`; by default what is best for the target.
        dynamic_shapes: axes that have to be dynamic, with names for their sizes, and axes that must not, such
            as `{"input_ids": {0: "batch", 1: "sequence"}}`, see `DynamicShapes`.
        target: a name of `TARGETS`: what the file is for.
        functions: whether what decodes stays in functions of the file: fewer nodes, but not every runtime
            knows functions. By default the target says.

    Raises:
        InputError: a name is unknown, the file cannot be written, the model cannot be exported, or an
            axis is asked to be dynamic that is not there or cannot be.
    """
    return export_for(compressed, path, example, choose_target(target, policy, functions), dynamic_shapes)


def export_for(
    compressed: CompressedModel,
    path: str | os.PathLike[str],
    example: Example,
    target: Target,
    dynamic_shapes: DynamicShapes | None = None,
) -> ExportReport:
    """`export_onnx`, with what the file is for as one object."""

    def build(axes: Axes) -> tuple[ir.Model, tuple[list[Served], tuple[LeftFloat, ...]]]:
        model = trace_placeholders(compressed, axes.inputs, axes.sizes)
        return model, fill_placeholders(model, compressed, target)

    nbytes, axes, (served, left) = _write_checked(
        path, compressed.module, example, dynamic_shapes, build, target.policy
    )
    return ExportReport(os.fspath(path), nbytes, target.policy, tuple(served), axes, left)


def trace_placeholders(compressed: CompressedModel, inputs: Inputs, places: Collection[Place]) -> ir.Model:
    """Export `compressed` with a node `muquant.Weight <name = ...> ()` for each of its compressed weights.

    Args:
        compressed: the model.
        inputs: an example.
        places: axes of it that are dynamic.
    """
    module = copy.deepcopy(compressed.module)
    place(module, compressed)
    return trace(module, inputs, places)


def fill_placeholders(
    model: ir.Model, compressed: CompressedModel, target: Target
) -> tuple[list[Served], tuple[LeftFloat, ...]]:
    """Replace the placeholders by packed codes and decoders, in place, and describe them in the metadata.

    Returns:
        How weights are served, and which stayed float.
    """
    packed = {name: PackedWeight.of(quantized) for name, quantized in compressed.tensors.items()}
    placed, left = find_placed(model, compressed)
    served = lower_for(model, {value: (name, packed[name]) for value, name in placed.items()}, target)
    for value in placed:
        placeholder = value.producer()
        assert placeholder is not None
        model.graph.remove(placeholder, safe=True)
    add_metadata(model, packed, target.policy, forms_by_weight(served))
    return served, left


def export_float(
    module: nn.Module,
    path: str | os.PathLike[str],
    example: Example,
    dynamic_shapes: DynamicShapes | None = None,
) -> int:
    """Write `module` as an ordinary float ONNX file, for comparison; returns its size in bytes.

    Its axes are dynamic as those of `export_onnx` are.
    """
    module = peeled(module)

    def build(axes: Axes) -> tuple[ir.Model, None]:
        return trace(module, axes.inputs, axes.sizes), None

    return _write_checked(path, module, example, dynamic_shapes, build, None)[0]


def _write_checked(
    path: str | os.PathLike[str],
    module: nn.Module,
    example: Example,
    dynamic_shapes: DynamicShapes | None,
    build: Callable[[Axes], tuple[ir.Model, _Built]],
    policy: str | None,
) -> tuple[int, tuple[InputAxis, ...], _Built]:
    """Write the file that `build` makes, with as many dynamic axes as hold under onnxruntime.

    Returns:
        Its size in bytes, its axes, and what `build` says of it.
    """
    axes = find_axes(module, taken_inputs(module, Inputs.of(example)), dynamic_shapes)
    with scratch_folder(path) as folder:
        while True:
            axes, trials = try_sizes(module, axes)
            model, built = build(axes)
            name_sizes(model, axes)
            data = serialized(model)
            tried = folder / "model.onnx"
            tried.write_bytes(data)
            left, other = check_sizes(tried, policy, module, axes, trials)
            if left is axes:
                break
            axes = left
    if forget_sizes(model, other):
        data = serialized(model)
    write_bytes(path, data)
    return len(data), describe_axes(model, axes), built


def serialized(model: ir.Model) -> bytes:
    """Check `model` by ONNX's full checker, and return it as a file holds it."""
    import onnx

    proto = as_proto(model)
    onnx.checker.check_model(proto, full_check=True)
    data: bytes = proto.SerializeToString(deterministic=True)
    return data
