"""The compressed weights of a file, and what numpy makes of their codes."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from numpy.typing import NDArray

from muquant.base.errors import InputError
from muquant.format.channels import Channels
from muquant.format.packing import look_up, packed_size
from muquant.format.spec import MuLawSpec
from muquant_onnx.format.metadata import WeightEntry
from muquant_onnx.format.names import Part, label
from muquant_onnx.format.packed_weight import PackedWeight
from muquant_onnx.format.reference import STEP_PARTS, codebook, read_steps

Array = NDArray[Any]
_CHUNK = 2**18
"""Weights that are scaled at a time."""


def read_weights(
    tensors: Mapping[str, onnx.TensorProto], entries: Mapping[str, WeightEntry]
) -> dict[str, PackedWeight]:
    """Return the compressed weights of a file by name.

    Args:
        tensors: the initializers of a file that muquant wrote, located.
        entries: the weights in its metadata.

    Raises:
        InputError: the parts of a weight do not fit together.
    """
    return {name: _read_weight(tensors, name, entry) for name, entry in entries.items()}


def _read_weight(tensors: Mapping[str, onnx.TensorProto], name: str, entry: WeightEntry) -> PackedWeight:
    try:
        packed, wide = _content(tensors, name, Part.PACKED), _content(tensors, name, Part.MU).numpy()
        if packed.dtype != ir.DataType.UINT8 or len(packed.shape) != 1 or wide.dtype != np.float64:
            raise ValueError(f"codes of {packed.dtype.name} {list(packed.shape)}, mu of {wide.dtype}")
        spec = MuLawSpec(
            bits=entry["bits"],
            mu=wide.item(),
            granularity=entry["granularity"],
            levels=entry["levels"],  # type: ignore[arg-type]  # which the spec checks
            grid=entry["grid"],  # type: ignore[arg-type]
        )
        if spec.grid_name != entry["grid"]:
            raise ValueError(f"the grid {entry['grid']!r}; expected a name of one")
        shape, channels = tuple(entry["shape"]), Channels.from_entry(entry)
        if min(shape) < 0 or packed_size(math.prod(shape), spec.bits) != packed.nbytes:
            raise ValueError(f"{packed.nbytes} bytes for the shape {shape}")
        step = _step(tensors, name)
        if not (np.isfinite(step) & (step >= 0)).all():
            raise ValueError("steps that are negative, infinite or no numbers; expected others")
        if float(step.max(initial=0)) * spec.grid_max > float(np.finfo(np.float32).max):
            raise ValueError(f"a step of {step.max():.3g}, whose largest level is none of float32")
        if spec.steps.kind == "tensor" and (step == step.reshape(-1)[:1]).all():
            step = step.reshape(-1)[:1]  # a DequantizeLinear's scale repeats it for each channel
        step = step.reshape(spec.steps.step_shape(channels.count(shape), channels.inputs(shape)))
    except (LookupError, ValueError, TypeError) as error:
        raise InputError(
            f"the parts of the weight {name} do not fit together ({error}); export it again"
        ) from error
    return PackedWeight(spec, shape, packed, step, channels)


def tensor_of(proto: onnx.TensorProto) -> ir.TensorProtocol:
    """A located tensor, whose values may lie in a file."""
    return ir.serde.deserialize_tensor(proto)


def _content(tensors: Mapping[str, onnx.TensorProto], weight: str, part: Part) -> ir.TensorProtocol:
    return tensor_of(tensors[label(weight, part)])


def _step(tensors: Mapping[str, onnx.TensorProto], name: str) -> NDArray[np.float32]:
    """The steps of a weight, from `NAME.step` or from what a DequantizeLinear takes, floats or 8 bits."""
    there = [part for part in STEP_PARTS if label(name, part) in tensors]
    return np.array(read_steps({part: _content(tensors, name, part).numpy() for part in there}), np.float32)


@dataclass(frozen=True, eq=False)
class Decoded:
    """What the codes of a weight stand for; each form is made when it is asked for."""

    packed: PackedWeight

    def look_up(self, values: Array) -> Array:
        """Unpack the codes and look up `values` [codes], in the weight's shape."""
        packed = self.packed
        codes = packed.packed.numpy().reshape(-1)
        return look_up(codes, packed.spec.bits, packed.size, values).reshape(packed.shape)

    @cached_property
    def codebook(self) -> Array:
        """The integer k for each code, int8 or int16."""
        spec = self.packed.spec
        k = codebook(spec.bits, spec.expansion_mu, spec.levels, spec.grid_name)
        return k.astype(spec.level_grid.storage)

    @property
    def places(self) -> Array:
        """The j of k = 2 j + 1 for each code, on a grid of odd k."""
        return (self.codebook - 1) // 2

    def levels(self) -> Array:
        """The integers k, in the weight's shape."""
        return self.look_up(self.codebook)

    def all_places(self) -> Array:
        """The j of k = 2 j + 1, in the weight's shape."""
        return self.look_up(self.places)

    def matrix(self, *, places: bool) -> Array:
        """The weight as a product takes it, float32 [inputs, outputs]; with `places` without one step in
        each weight: 2 step j instead of step (2 j + 1)."""
        packed = self.packed
        weight = self.weight()
        if places:
            twice = replace(packed, step=2 * packed.step)
            weight = Decoded(twice).scaled(self.all_places())
        return weight if packed.channels.axis else np.ascontiguousarray(weight.T)

    def weight(self) -> Array:
        """float32(k) * step, rounded to the type of the weight's consumers, in the weight's shape."""
        return self.scaled(self.levels())

    def scaled(self, levels: Array) -> Array:
        """Multiply integers in the weight's shape by its steps, and round to the type of its consumers."""
        packed = self.packed
        weight = np.empty(packed.shape, np.float32)
        if not weight.size:
            return weight.astype(packed.dtype.numpy())
        channels, shape = packed.channels, packed.shape
        blocked, order = channels.blocked(shape), channels.order(shape)
        levels, rows = (array.reshape(blocked).transpose(order) for array in (levels, weight))
        wide, count = packed.step, len(channels.blocked_axes)
        if packed.spec.steps.kind == "group":
            wide = np.repeat(wide, packed.spec.steps.group_size, 1)[:, : channels.inputs(shape)]
        elif packed.spec.steps.kind == "tensor":
            wide = np.broadcast_to(wide, (channels.count(shape), 1))
        others = rows.shape[count:] if wide.shape[1] > 1 else (1,) * (rows.ndim - count)
        wide = wide.reshape(*rows.shape[:count], *others)
        height = max(1, _CHUNK * len(rows) // max(packed.size, 1))
        for start in range(0, len(rows), height):
            part = slice(start, start + height)
            np.multiply(levels[part], wide[part], out=rows[part], dtype=np.float32)
        return weight.astype(packed.dtype.numpy(), copy=False)
