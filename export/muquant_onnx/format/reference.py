"""Decode the weights of an exported file with numpy alone: FORMAT.md as code, and an oracle for `verify`.

Nothing here uses the rest of the package but its errors, its names, its metadata, and the rule where external
data may lie: it is written from the document.
"""

import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from muquant.base.errors import InputError, first_line
from muquant.base.files import beside
from muquant.base.reading import require_file
from muquant_onnx.format.metadata import Metadata, WeightEntry, metadata_of
from muquant_onnx.format.names import Part, label

SMALLEST_MU, LARGEST_MU = 1e-300, 65536
STEP_PARTS = (Part.STEP, Part.SCALE, Part.STEP_CODES, Part.SCALE_CODES, Part.STEP_UNIT)
"""Of a weight: what its steps are read from."""


def read_model(path: str | os.PathLike[str]) -> tuple[onnx.ModelProto, Metadata]:
    """Return an exported file, its external data not loaded, and its metadata block.

    Raises:
        InputError: the file is missing, is not ONNX, or was not written by muquant.
    """
    require_file(path, "name an ONNX file")
    try:
        model = onnx.load(os.fspath(path), load_external_data=False)
    except Exception as error:  # protobuf and onnx have no common base
        raise InputError(
            f"{path} is not a whole ONNX file ({first_line(error)}); name one that muquant exported"
        ) from error
    return model, metadata_of(model, path)


def decode_model(
    model: onnx.ModelProto, metadata: Metadata, path: str | os.PathLike[str]
) -> dict[str, np.ndarray[Any, np.dtype[np.float32]]]:
    """Return the float32 weights of a file that `read_model` has read from `path`, by name, each in its own
    shape.

    Raises:
        InputError: its parts do not fit together.
    """
    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    weights = {}
    for name, entry in metadata["weights"].items():
        try:
            packed = _array(initializers[label(name, Part.PACKED)], path)
            mu = float(_array(initializers[label(name, Part.MU)], path).item())
            parts = {
                part: _array(initializers[label(name, part)], path)
                for part in STEP_PARTS
                if label(name, part) in initializers
            }
            weights[name] = decode(packed, mu, read_steps(parts), entry)
        except InputError:
            raise
        except (LookupError, ValueError, TypeError, AttributeError, ArithmeticError) as error:
            raise InputError(
                f"{path}: the parts of {name} do not fit together ({error!r}); export it again"
            ) from error
    return weights


def read_steps(parts: Mapping[Part, np.ndarray[Any, Any]]) -> np.ndarray[Any, Any]:
    """Return the steps of a weight from those of its initializers that are there, float32.

    A DequantizeLinear's scale is [channels], or with groups [groups, channels].
    """
    for part, turned in ((Part.STEP, False), (Part.SCALE, True)):
        codes = {Part.STEP: Part.STEP_CODES, Part.SCALE: Part.SCALE_CODES}[part]
        if part in parts:
            step = parts[part]
        elif codes in parts:
            step = decode_steps(parts[codes], parts[Part.STEP_UNIT])
        else:
            continue
        return step.T if turned else step
    raise KeyError(Part.STEP)


def decode_steps(
    codes: np.ndarray[Any, Any], unit: np.ndarray[Any, Any]
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return steps from their codes, uint8 of any shape, and their unit, float32 []."""
    if codes.dtype != np.uint8 or unit.size != 1:
        raise ValueError(f"step codes of {codes.dtype}, {unit.size} units")
    exponent, mantissa = (part.astype(np.int64) for part in divmod(codes, 16))
    k = np.where(exponent, (16 + mantissa) << np.maximum(exponent - 1, 0), mantissa)
    steps: np.ndarray[Any, np.dtype[np.float32]] = k.astype(np.float32) * np.float32(unit.item())
    return steps


def _array(tensor: onnx.TensorProto, path: str | os.PathLike[str]) -> np.ndarray[Any, Any]:
    """Return the values of a tensor of the model at `path`, which may lie in a file beside it."""
    if tensor.data_location != onnx.TensorProto.EXTERNAL:
        return numpy_helper.to_array(tensor)
    entry = {item.key: item.value for item in tensor.external_data}
    file = beside(Path(path), entry.get("location", ""), f"{path}: the external data of {tensor.name}")
    dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    count, offset = math.prod(tensor.dims), int(entry.get("offset", 0))
    if min(offset, count) < 0 or offset + count * dtype.itemsize > file.stat().st_size:
        raise ValueError(f"{file} has no {count} values at {offset}")
    return np.fromfile(file, dtype, count, offset=offset).reshape(tuple(tensor.dims))


def decode(
    packed: np.ndarray[Any, Any], mu: float, step: np.ndarray[Any, Any], entry: WeightEntry
) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return one weight, float32: unpack the codes, look up `k`, multiply by the step.

    Args:
        packed: uint8, 8 codes in `bits` bytes, least significant bit first.
        mu: of the expansion; 0 for uniform levels.
        step: float32, one number, one for each channel in any shape, or [channels, groups].
        entry: the weight's metadata: bits, levels, grid, granularity, shape, channel_axis, channel_groups.
    """
    bits, shape = entry["bits"], entry["shape"]
    if not (mu == 0 or SMALLEST_MU <= mu <= LARGEST_MU) or not (np.isfinite(step) & (step >= 0)).all():
        raise ValueError(f"mu is {mu}, or a step is none")
    count = math.prod(shape)
    if bits not in range(2, 5 if entry["grid"] == "int4" else 9):
        raise ValueError(f"codes of {bits} bits")
    if packed.size != -(-count // 8) * bits:
        raise ValueError(f"{packed.size} bytes for {count} codes of {bits} bits")
    stream = np.unpackbits(packed, bitorder="little")[: count * bits].reshape(count, bits)
    codes = stream @ (1 << np.arange(bits))
    levels = codebook(bits, mu, entry["levels"], entry["grid"])
    if float(step.max(initial=0)) * float(np.abs(levels).max()) > float(np.finfo(np.float32).max):
        raise ValueError(f"a step of {step.max()}, whose largest level is no float32")
    k = levels[codes].reshape(shape).astype(np.float32)

    axis, blocks = entry["channel_axis"], entry.get("channel_groups", 1)
    axes = axis if isinstance(axis, list) else [axis]
    if blocks > 1:  # axis 0 is [groups, the rest of it]
        k = k.reshape(blocks, -1, *shape[1:])
        axes = [0, *(axis + 1 for axis in axes)]
    first = range(len(axes))
    moved = np.moveaxis(k, axes, first)
    channels = math.prod(moved.shape[: len(axes)])
    rows = moved.reshape(channels, -1)
    kind, _, size = entry["granularity"].partition(":")
    if kind == "group":
        if int(size) < 1:
            raise ValueError(f"groups of {size}")
        wide = step.reshape(channels, -1)[:, np.arange(rows.shape[1]) // int(size)]
    else:
        wide = step.reshape(-1, 1)
    weights: np.ndarray[Any, np.dtype[np.float32]] = (rows * wide).reshape(moved.shape)
    return np.moveaxis(weights, first, axes).reshape(shape)


def codebook(bits: int, mu: float, levels: str, grid: str) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Return `k` for each code, in float64: the integer nearest to grid_max F^-1(y), half to even.

    On the int4 grid of mid-rise it is the nearest odd one, half away from zero.
    """
    n = {"mid-rise": 2**bits - 1, "mid-tread": 2 ** (bits - 1) - 1}[levels]
    y = np.arange(-n, n + 1, 2 if levels == "mid-rise" else 1) / n
    if levels == "mid-tread":
        y = np.append(y, 0.0)  # the spare code
    odd = grid == "int4" and levels == "mid-rise"
    largest = 15 if odd else {"int4": 7, "int8": 127, "int16": 32767}[grid]
    if mu == 0:
        levels_of_y = y
        largest = max((m for m in range(n, largest + 1, n) if not odd or m % 2), default=largest)
    else:
        levels_of_y = np.sign(y) * np.expm1(np.abs(y) * np.log1p(mu)) / mu
    exact = largest * levels_of_y
    k = np.sign(y) * (2 * np.floor(np.abs(exact) / 2) + 1) if odd else np.round(exact)
    integers: np.ndarray[Any, np.dtype[np.int64]] = k.astype(np.int64)
    return integers
