"""What an operator is here, and how its attributes are read."""

from collections.abc import Callable, Sequence

import onnx_ir as ir
import torch
from torch import Tensor

from muquant.base.errors import InputError

Result = Tensor | Sequence[Tensor]
Operator = Callable[..., Result]
"""(node, inputs in order, None for those left out) -> its output, or its outputs in order."""

DTYPES = {
    ir.DataType.BOOL: torch.bool,
    ir.DataType.INT8: torch.int8,
    ir.DataType.INT16: torch.int16,
    ir.DataType.INT32: torch.int32,
    ir.DataType.INT64: torch.int64,
    ir.DataType.UINT8: torch.uint8,
}


def dtype_of(kind: int) -> torch.dtype:
    """Return torch's type for an ONNX type: float32 for all floating-point types, int64 for wide unsigned
    integers.

    Raises:
        InputError: it is no type of numbers.
    """
    dtype = ir.DataType(kind)
    if dtype.is_floating_point():
        return torch.float32
    if dtype in (ir.DataType.UINT16, ir.DataType.UINT32, ir.DataType.UINT64):
        return torch.int64
    if dtype not in DTYPES:
        raise InputError(f"the type {dtype.name.lower()} is not known to torch; expected numbers")
    return DTYPES[dtype]


def plain(function: Callable[..., Result]) -> Operator:
    """Return the operator that is a function of its inputs alone."""
    return lambda _, *inputs: function(*inputs)


def refuse(node: ir.Node, setting: str) -> InputError:
    """Return the error for a setting of an operator that has no translation."""
    return InputError(f"{node.op_type} with {setting} has no translation to torch")


def numbers(value: Tensor | None) -> list[int] | None:
    """Return a tensor of whole numbers as a list; None where it is left out."""
    return None if value is None else [int(number) for number in value.reshape(-1).tolist()]
