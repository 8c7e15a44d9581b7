"""Values of float tensors, read from files without more memory than they take."""

from pathlib import Path

import numpy as np
import onnx_ir as ir
import torch
from torch import Tensor

from muquant.format.rows import CHUNK

FLOATS = {ir.DataType.FLOAT: np.float32, ir.DataType.FLOAT16: np.float16, ir.DataType.BFLOAT16: np.uint16}
"""Types of weights that can be compressed, and what holds their bits in numpy."""


def read_float(tensor: ir.TensorProtocol) -> Tensor:
    """Return a float, float16 or bfloat16 tensor as float32.

    Of a tensor in a file, float32 is mapped, which takes memory as it is read and gives it back with the
    result; halves are widened a few at a time.
    """
    if not isinstance(tensor, ir.ExternalTensor):
        return torch.from_numpy(np.array(tensor.numpy(), np.float32))
    shape, offset, stored = tuple(tensor.shape.numpy()), tensor.offset or 0, FLOATS[tensor.dtype]
    if tensor.dtype == ir.DataType.FLOAT:
        return torch.from_numpy(np.memmap(tensor.path, "<f4", "c", offset, shape))
    values = torch.empty(shape)
    half = torch.float16 if tensor.dtype == ir.DataType.FLOAT16 else torch.bfloat16
    with Path(tensor.path).open("rb") as file:
        file.seek(offset)
        for part in torch.split(values.reshape(-1), CHUNK):
            bits = np.fromfile(file, stored, len(part))
            part.copy_(torch.from_numpy(bits.view(np.int16)).view(half))
    return values
