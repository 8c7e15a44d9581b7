"""A weight as the integer matrix of a product, in the shapes from which onnxruntime makes a `MatMulNBits`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import onnx_ir as ir

from muquant_onnx.weight_store import WeightStore


class NotServedError(Exception):
    """An integer form does not fit a use of a weight; the message says why."""


SMALLEST_MATRIX = 2**17
"""Weights from which "auto" prefers an integer kernel: it reads a quarter of the bytes or less, but its call
costs more. At batch 1 they break even at about 10^5 weights."""

_FUSED_GROUPS = {16, 32, 64, 128, 256}
_BLOCKED_OPSET = 21
"""The first in which `DequantizeLinear` has blocks."""
_INT4_OPSET = 21
"""The first with the type INT4."""


@dataclass(frozen=True)
class MatrixKernel:
    """One of onnxruntime's kernels for a product with an integer matrix, and what it is given.

    The 4-bit kernel takes j = -8..7. Where the levels are k = 2 j + 1, a weight is (2 step) j + step: the
    product with the first part is the kernel's, and the second part adds the sum of each group of inputs
    times its step.

    Attributes:
        bits: of a weight in memory.
    """

    bits: Literal[4, 8]

    def check(self, store: WeightStore, inputs: Sequence[ir.Value], *, transpose: bool, pays: bool) -> None:
        """Refuse a weight that the kernel does not take.

        Args:
            store: the weight.
            inputs: what it is to be multiplied with, in each of its products.
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
        if len(quantized.shape) != 2 or quantized.channel_axis != (0 if transpose else 1):
            raise NotServedError("its channels are not the outputs of the MatMul")
        if pays and quantized.size < SMALLEST_MATRIX:
            raise NotServedError(f"{quantized.size} weights are too few for an integer kernel to pay")
        size, length = spec.steps.group_size, quantized.shape[1 - quantized.channel_axis]
        if spec.steps.kind != "group":
            return
        if size not in _FUSED_GROUPS or length % size:
            raise NotServedError(f"onnxruntime's kernels do not take groups of {size} in {length} inputs")
        if opset < _BLOCKED_OPSET:
            raise NotServedError(f"groups need opset {_BLOCKED_OPSET}")
        if self._lacks_a_step(store) and any(x.shape is None for x in inputs):
            raise NotServedError("how many axes its inputs have is not known")

    def terms(self, store: WeightStore, x: ir.Value, *, transpose: bool) -> tuple[ir.Value, ir.Value | None]:
        """Return the matrix to multiply `x` with, and what to add to the product, if anything.

        They are float32 [inputs, outputs], as it leaves `DequantizeLinear`, and [..., outputs].

        Args:
            store: a weight that `check` has passed.
            x: [..., inputs].
            transpose: as for `check`.
        """
        quantized, steps = store.quantized, store.quantized.spec.steps
        outputs = quantized.shape[quantized.channel_axis]
        lacking = self._lacks_a_step(store)
        part = "places" if lacking else "levels"
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
        scale = store.constant(f"scale{store.count('scale')}", step)
        if not lacking:
            return self._dequantized(store, [integers, scale], "dequantized", shape, layout), None
        twice = store.node("Add", [scale, scale], "twice_scale", ir.DataType.FLOAT, step.shape)
        matrix = self._dequantized(store, [integers, twice], "dequantized_places", shape, layout)
        product = "MatMul" if steps.kind == "group" else "Mul"
        return matrix, store.node(product, [store.sums(x), scale], "added_steps", ir.DataType.FLOAT, None)

    def _lacks_a_step(self, store: WeightStore) -> bool:
        return self.bits == 4 and store.quantized.spec.level_grid.odd

    @staticmethod
    def _dequantized(
        store: WeightStore,
        inputs: list[ir.Value],
        name: str,
        shape: tuple[int, int],
        layout: dict[str, int | list[int]],
    ) -> ir.Value:
        return store.node("DequantizeLinear", inputs, name, ir.DataType.FLOAT, shape, domain="", **layout)


INT8, INT4 = MatrixKernel(8), MatrixKernel(4)
