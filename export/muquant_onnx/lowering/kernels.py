"""A weight as the integer matrix of a product, in the shapes from which onnxruntime makes a `MatMulNBits`."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from muquant_onnx.format.decode_function import Tables
from muquant_onnx.format.names import Part
from muquant_onnx.lowering.store import WeightStore


class NotServedError(Exception):
    """An integer form does not fit a use of a weight; the message says why."""


SMALLEST_MATRIX = 2**17
"""Weights from which "auto" prefers an integer kernel: it reads a quarter of the bytes or less, but its call
costs more. At batch 1 they break even at about 10^5 weights."""

CONTRIB = "com.microsoft"
"""The domain of onnxruntime's own operators."""
BLOCKS = (256, 128, 64, 32, 16)
"""Inputs that share a scale, as onnxruntime's kernels take them; the larger, the faster."""
_USUAL_BLOCK = 32
"""What onnxruntime takes by itself where a channel has one scale."""
_BLOCKED_OPSET = 21
"""The first in which `DequantizeLinear` has blocks."""
_INT4_OPSET = 21
"""The first with the type INT4."""


def largest_block(inputs: int, above: int = 0) -> int:
    """The largest of `BLOCKS` that divides a row of so many inputs, if it is above a size; else 0."""
    return next((size for size in BLOCKS if size > above and inputs % size == 0), 0)


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
        if self.bits == 4 and not store.kernels and opset < _INT4_OPSET:
            raise NotServedError(f"int4 needs opset {_INT4_OPSET}")
        if len(quantized.shape) != 2 or quantized.channels.axis != (0 if transpose else 1):
            raise NotServedError("its channels are not the outputs of the MatMul")
        if pays and quantized.size < SMALLEST_MATRIX:
            raise NotServedError(f"{quantized.size} weights are too few for an integer kernel to pay")
        if self.bits == 4 and store.kernels and not (transpose and self._block(store)):
            raise NotServedError("the operator's 4-bit codes can only be made of rows of outputs, in blocks")
        size, length = spec.steps.group_size, quantized.channels.inputs(quantized.shape)
        if spec.steps.kind != "group":
            return
        if size not in BLOCKS or length % size:
            raise NotServedError(f"onnxruntime's kernels do not take groups of {size} in {length} inputs")
        if opset < _BLOCKED_OPSET and not store.kernels:
            raise NotServedError(f"groups need opset {_BLOCKED_OPSET}")
        if self._lacks_steps(store) and None in ranks:
            raise NotServedError("how many axes its inputs have is not known")

    def product(
        self, store: WeightStore, x: ir.Value, rank: int | None, *, transpose: bool, shape: ir.Shape | None
    ) -> tuple[ir.Value, Steps | None]:
        """Return the product of `x` and the matrix, and what that lacks; see `matrix`.

        Args:
            store, x, rank, transpose: as for `matrix`.
            shape: of the product.
        """
        block = self._block(store) if store.kernels else 0
        if not block:
            matrix, steps = self.matrix(store, x, rank, transpose=transpose)
            return store.node("MatMul", [x, matrix], "matmul", ir.DataType.FLOAT, shape), steps
        channels, own = store.quantized.channels, store.quantized.shape
        outputs, inputs = channels.count(own), channels.inputs(own)
        scale = store.scale(self._scale(store))
        given = [
            x,
            self._codes(store, block, transpose=transpose),
            self._scales(store, scale, inputs // block),
        ]
        how = {"K": inputs, "N": outputs, "bits": self.bits, "block_size": block, "accuracy_level": 4}
        found = store.node("MatMulNBits", given, "matmul", ir.DataType.FLOAT, shape, CONTRIB, **how)
        if not self._lacks_steps(store):
            return found, None
        return found, Steps(store.sums(x, rank), self._step_rows(store, scale))

    def _codes(self, store: WeightStore, block: int, *, transpose: bool) -> ir.Value:
        """The integers as `MatMulNBits` takes them: uint8 [outputs, blocks, bytes]."""
        spec, (rows, columns) = store.quantized.spec, store.quantized.shape
        tables = replace(Tables.of(spec, places=self._lacks_steps(store)), kernel=self.bits)
        if transpose:
            shape = (rows, columns // block, block * self.bits // 8)
            return store.looked_up(Part.KERNEL_CODES, tables, shape, "kernel_shape")
        matrix = store.looked_up(Part.KERNEL_MATRIX, tables, (rows, columns), Part.SHAPE)
        turned = store.node(
            "Transpose", [matrix], "kernel_rows", ir.DataType.UINT8, (columns, rows), perm=[1, 0]
        )
        return store.shaped("Reshape", turned, Part.KERNEL_CODES, (columns, rows // block, block))

    def _scales(self, store: WeightStore, scale: ir.Value, blocks: int) -> ir.Value:
        """The scale of each block, float32 [outputs * blocks]."""
        outputs = store.quantized.channels.count(store.quantized.shape)
        if store.quantized.spec.steps.kind == "group":
            wide = store.node(
                "Transpose", [scale], "scale_rows", ir.DataType.FLOAT, (outputs, blocks), perm=[1, 0]
            )
        else:
            column = store.shaped("Reshape", scale, "scale_column", (outputs, 1))
            wide = store.shaped("Expand", column, "blocked_scale", (outputs, blocks))
        if self._lacks_steps(store):
            wide = store.node("Add", [wide, wide], "twice_scale", ir.DataType.FLOAT, (outputs, blocks))
        return store.shaped("Reshape", wide, "kernel_scales", (outputs * blocks,))

    def _block(self, store: WeightStore) -> int:
        """Inputs that share a scale in the operator; 0 where none of its sizes fits."""
        steps, inputs = store.quantized.spec.steps, store.quantized.channels.inputs(store.quantized.shape)
        return steps.group_size or largest_block(inputs)

    @staticmethod
    def _scale(store: WeightStore) -> NDArray[np.float32]:
        """The steps as `DequantizeLinear` takes them: [outputs], or [groups, outputs]."""
        quantized = store.quantized
        if quantized.spec.steps.kind == "group":
            return np.ascontiguousarray(quantized.step.T)
        return np.broadcast_to(
            quantized.step.reshape(-1), (quantized.channels.count(quantized.shape),)
        ).copy()

    @staticmethod
    def _step_rows(store: WeightStore, scale: ir.Value) -> ir.Value:
        """The scale as [groups, outputs]; a channel is one group."""
        if store.quantized.spec.steps.kind == "group":
            return scale
        outputs = store.quantized.channels.count(store.quantized.shape)
        first = store.constant("first_axis", np.array([0]))
        return store.node("Unsqueeze", [scale, first], "step_row", ir.DataType.FLOAT, (1, outputs))

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
        layout: dict[str, int | list[int]] = {"axis": 1}
        if steps.kind == "group":
            layout = {"axis": 0, "block_size": steps.group_size}
        scale = taken = store.scale(self._scale(store))
        if lacking:
            taken = store.node("Add", [scale, scale], "twice_scale", ir.DataType.FLOAT, scale.shape)
        block = largest_block(shape[0], above=_USUAL_BLOCK)
        if steps.kind != "group" and block and store.graph.opset_imports[""] >= _BLOCKED_OPSET:
            layout = {"axis": 0, "block_size": block}
            taken = store.shaped("Expand", taken, "blocked_scale", (shape[0] // block, outputs))
        if not lacking:
            return self._dequantized(store, [integers, taken], Part.DEQUANTIZED, shape, layout), None
        matrix = self._dequantized(store, [integers, taken], Part.DEQUANTIZED_PLACES, shape, layout)
        return matrix, Steps(store.sums(x, rank), self._step_rows(store, scale))

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
