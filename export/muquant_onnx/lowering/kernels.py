"""A weight as the integer matrix of a product, in the shapes from which onnxruntime makes a `MatMulNBits`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import onnx_ir as ir

from muquant_onnx.format.names import Part
from muquant_onnx.lowering.store import WeightStore


class NotServedError(Exception):
    """An integer form does not fit a use of a weight; the message says why."""


SMALLEST_MATRIX = 2**17
"""Weights from which "auto" prefers an integer kernel: it reads a quarter of the bytes or less, but its call
costs more. At batch 1 they break even at about 10^5 weights."""

_FUSED_GROUPS = {16, 32, 64, 128, 256}
_BLOCKS = (256, 128, 64)
"""Inputs that a scale of a channel is repeated for: onnxruntime would take 32, and be up to twice as slow."""
_BLOCKED_OPSET = 21
"""The first in which `DequantizeLinear` has blocks."""
_INT4_OPSET = 21
"""The first with the type INT4."""


class Steps(NamedTuple):
    """What a matrix lacks: one step in every weight, by which a product lacks sums @ rows.

    Attributes:
        sums: of the inputs over each group, float32 [..., groups]; a channel is one group.
        rows: the steps, float32 [groups, outputs].
    """

    sums: ir.Value
    rows: ir.Value


@dataclass(frozen=True)
class MatrixKernel:
    """One of onnxruntime's kernels for a product with an integer matrix, and what it is given.

    The 4-bit kernel takes j = -8..7. Where the levels are k = 2 j + 1, a weight is (2 step) j + step: the
    kernel is given the first part, and the second is `Steps`.

    Attributes:
        bits: of a weight in memory.
    """

    bits: Literal[4, 8]

    def check(self, store: WeightStore, ranks: Sequence[int | None], *, transpose: bool, pays: bool) -> None:
        """Refuse a weight that the kernel does not take.

        Args:
            store: the weight.
            ranks: number of axes of what it is multiplied with, in each of its products; None if unknown.
            transpose: whether it is stored as [outputs, inputs].
            pays: only where the kernel is also expected to be faster than a float product.

        Raises:
            NotServedError: it does not.
        """
        quantized = store.quantized
        spec, opset = quantized.spec, store.graph.opset_imports[""]
        if self.bits == 4 and spec.grid_name != "int4":
            raise NotServedError(f"its levels are on the {spec.grid_name} grid")
        if self.bits == 4 and opset < _INT4_OPSET:
            raise NotServedError(f"int4 needs opset {_INT4_OPSET}")
        if len(quantized.shape) != 2 or quantized.channels.axis != (0 if transpose else 1):
            raise NotServedError("its channels are not the outputs of the MatMul")
        if pays and quantized.size < SMALLEST_MATRIX:
            raise NotServedError(f"{quantized.size} weights are too few for an integer kernel to pay")
        size, length = spec.steps.group_size, quantized.channels.inputs(quantized.shape)
        if spec.steps.kind != "group":
            return
        if size not in _FUSED_GROUPS or length % size:
            raise NotServedError(f"onnxruntime's kernels do not take groups of {size} in {length} inputs")
        if opset < _BLOCKED_OPSET:
            raise NotServedError(f"groups need opset {_BLOCKED_OPSET}")
        if self._lacks_steps(store) and None in ranks:
            raise NotServedError("how many axes its inputs have is not known")

    def matrix(
        self, store: WeightStore, x: ir.Value, rank: int | None, *, transpose: bool
    ) -> tuple[ir.Value, Steps | None]:
        """Return the matrix to multiply `x` with, float32 [inputs, outputs], and what it lacks.

        Args:
            store: a weight that `check` has passed.
            x: [..., inputs].
            rank: of `x`, as for `check`.
            transpose: as for `check`.
        """
        quantized, steps = store.quantized, store.quantized.spec.steps
        outputs = quantized.channels.count(quantized.shape)
        lacking = self._lacks_steps(store)
        part = Part.PLACES if lacking else Part.LEVELS
        integers = store.places() if lacking else store.levels()
        shape = (quantized.size // max(outputs, 1), outputs)
        if transpose:
            integers = store.node(
                "Transpose", [integers], f"matrix_{part}", ir.DataType.INT8, shape, perm=[1, 0]
            )
        if self.bits == 4:
            integers = store.node(
                "Cast", [integers], f"int4_{part}", ir.DataType.INT4, shape, to=ir.DataType.INT4
            )
        if steps.kind == "group":
            step = np.ascontiguousarray(quantized.step.T)
            layout: dict[str, int | list[int]] = {"axis": 0, "block_size": steps.group_size}
        else:
            step = np.broadcast_to(quantized.step.reshape(-1), (outputs,)).copy()
            layout = {"axis": 1}
        scale = taken = store.scale(step)
        if lacking:
            taken = store.node("Add", [scale, scale], "twice_scale", ir.DataType.FLOAT, step.shape)
        block = next((size for size in _BLOCKS if shape[0] % size == 0), 0)
        if steps.kind != "group" and block and store.graph.opset_imports[""] >= _BLOCKED_OPSET:
            layout = {"axis": 0, "block_size": block}
            taken = store.shaped("Expand", taken, "blocked_scale", (shape[0] // block, outputs))
        if not lacking:
            return self._dequantized(store, [integers, taken], Part.DEQUANTIZED, shape, layout), None
        matrix = self._dequantized(store, [integers, taken], Part.DEQUANTIZED_PLACES, shape, layout)
        if steps.kind != "group":
            first = store.constant("first_axis", np.array([0]))
            scale = store.node("Unsqueeze", [scale, first], "step_row", ir.DataType.FLOAT, (1, outputs))
        return matrix, Steps(store.sums(x, rank), scale)

    def _lacks_steps(self, store: WeightStore) -> bool:
        return self.bits == 4 and store.quantized.spec.level_grid.odd

    @staticmethod
    def _dequantized(
        store: WeightStore,
        inputs: list[ir.Value],
        part: Part,
        shape: tuple[int, int],
        layout: dict[str, int | list[int]],
    ) -> ir.Value:
        return store.node("DequantizeLinear", inputs, part, ir.DataType.FLOAT, shape, domain="", **layout)


INT8, INT4 = MatrixKernel(8), MatrixKernel(4)
