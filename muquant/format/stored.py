"""A quantized weight as tensors of a file, and what its manifest says of it."""

import math
from collections.abc import Container, Mapping
from typing import Any

import torch
from torch import Tensor

from muquant.base.errors import InputError
from muquant.format.channels import Channels
from muquant.format.packing import unpack
from muquant.format.spec import MuLawSpec
from muquant.format.steps import CodedSteps, coded_steps
from muquant.format.tensor import QuantizedTensor


def weight_tensors(name: str, quantized: QuantizedTensor) -> dict[str, Tensor]:
    """Return `codes.NAME` (packed bytes) and `step.NAME`; or where 8 bits hold the steps `step_codes.NAME`
    and `step_unit.NAME`."""
    codes = {f"codes.{name}": torch.from_numpy(quantized.packed())}
    coded = coded_steps(quantized.step.numpy())
    if coded is None:
        return codes | {f"step.{name}": quantized.step}
    parts = {f"step_codes.{name}": coded.codes, f"step_unit.{name}": coded.unit}
    return codes | {key: torch.from_numpy(part) for key, part in parts.items()}


def weight_entry(quantized: QuantizedTensor) -> dict[str, Any]:
    """Return what a manifest says of it, JSON values."""
    return {
        "format": quantized.spec.to_dict(),
        "shape": list(quantized.shape),
        **quantized.channels.to_entry(),
    }


def read_weight(name: str, tensors: Mapping[str, Tensor], entry: Mapping[str, Any]) -> QuantizedTensor:
    """Return the weight NAME of a file.

    Raises:
        InputError: tensors and entry do not fit together.
        KeyError: one is missing.
    """
    shape = entry["shape"]
    if not shape or not all(isinstance(size, int) and 0 <= size < 2**40 for size in shape):
        raise InputError(f"{name} has the shape {shape}; expected a list of sizes")
    spec = MuLawSpec.from_dict(entry["format"])
    packed = tensors[f"codes.{name}"]
    if packed.dtype != torch.uint8:
        raise InputError(f"the codes of {name} are {packed.numpy().dtype}; expected uint8")
    codes = unpack(packed.numpy(), spec.bits, math.prod(shape))
    quantized = QuantizedTensor(
        spec, torch.from_numpy(codes).reshape(shape), _read_steps(name, tensors), Channels.from_entry(entry)
    )
    largest = float(quantized.step.max()) if quantized.step.numel() else 0.0
    if largest * spec.grid_max > torch.finfo(torch.float32).max:
        raise InputError(
            f"{name} has a step of {largest:.3g}, with which weights are infinite; take an unchanged copy"
        )
    return quantized


def parts_of(name: str, tensors: Container[str]) -> set[str]:
    """Return the names of the tensors of a file that `read_weight` looks at."""
    steps = ("step",) if f"step.{name}" in tensors else ("step_codes", "step_unit")
    return {f"{part}.{name}" for part in ("codes", *steps)}


def _read_steps(name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    if f"step.{name}" in tensors:
        return tensors[f"step.{name}"]
    codes, unit = (tensors[f"{part}.{name}"] for part in ("step_codes", "step_unit"))
    if codes.dtype != torch.uint8 or unit.dtype != torch.float32 or unit.numel() != 1:
        raise InputError(
            f"the steps of {name} are codes of {codes.numpy().dtype} and {unit.numel()} units of "
            f"{unit.numpy().dtype}; expected uint8 and one float32"
        )
    return torch.from_numpy(CodedSteps(codes.numpy(), unit.numpy().reshape(())).decoded())
