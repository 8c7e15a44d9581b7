"""Values of float tensors, read from files without more memory than they take."""

from typing import Any

import numpy as np
import onnx_ir as ir
import torch
from numpy.typing import NDArray
from torch import Tensor

from muquant.format.rows import CHUNK

FLOATS = {
    ir.DataType.FLOAT: np.float32,
    ir.DataType.FLOAT16: np.float16,
    ir.DataType.BFLOAT16: np.uint16,
    ir.DataType.DOUBLE: np.float64,
}
"""Types of weights that can be compressed, and what holds their bits in numpy."""


def read_float(tensor: ir.TensorProtocol) -> Tensor:
    """Return a float, float16, bfloat16 or double tensor as float32.

    Of a tensor in a file, float32 is mapped, which takes memory as it is read and gives it back with the
    result; others are converted a few at a time.
    """
    stored = stored_array(tensor)
    if not isinstance(tensor, ir.ExternalTensor):
        return torch.from_numpy(np.array(stored, np.float32))
    if tensor.dtype == ir.DataType.FLOAT:
        return torch.from_numpy(stored)
    values = torch.empty(stored.shape)
    new, old = values.reshape(-1).numpy(), stored.reshape(-1)
    for start in range(0, len(new), CHUNK):
        new[start : start + CHUNK] = old[start : start + CHUNK]
    return values


def stored_array(tensor: ir.TensorProtocol) -> NDArray[Any]:
    """Return the numbers of a tensor in the type in which they are stored; those in a file are mapped, and
    changes to them are not written back."""
    if not isinstance(tensor, ir.ExternalTensor):
        return tensor.numpy()
    shape = tuple(tensor.shape.numpy())
    return np.memmap(tensor.path, tensor.dtype.numpy().newbyteorder("<"), "c", tensor.offset or 0, shape)


def fits_float32(values: NDArray[Any]) -> bool:
    """Whether no finite number is beyond the range of float32."""
    flat, largest = values.reshape(-1), float(np.finfo(np.float32).max)
    parts = (np.abs(flat[start : start + CHUNK]) for start in range(0, flat.size, CHUNK))
    return all(bool(((part <= largest) | ~np.isfinite(part)).all()) for part in parts)


def float_tensor(values: Tensor, dtype: ir.DataType, name: str) -> ir.TensorProtocol:
    """Return float32 values as a tensor of a type of `FLOATS`."""
    if dtype == ir.DataType.BFLOAT16:
        bits = values.to(torch.bfloat16).view(torch.int16).numpy().view(np.uint16)
        return ir.Tensor(bits, dtype=dtype, name=name)
    return ir.tensor(values.numpy().astype(FLOATS[dtype]), name=name)
