"""How a use of a weight is served from int8 levels, by the operator that uses it.

A new form is one function here and one line in `FORMS`.
"""

from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from muquant_onnx.weight_store import WeightStore, stand_in


class NotServedError(Exception):
    """An int8 form does not fit a use of a weight; the message says why."""


def serve_int8(store: WeightStore, consumer: ir.Node, index: int, *, pays: bool) -> None:
    """Serve one use of a weight by an int8 form.

    Args:
        store: the weight.
        consumer: the node that uses it.
        index: the place among the node's inputs.
        pays: only where the form is also expected to be faster than the float one.

    Raises:
        NotServedError: no form fits; the graph is as it was.
    """
    form = FORMS.get(consumer.op_type) if consumer.domain == "" else None
    spec = store.quantized.spec
    if form is None:
        raise NotServedError(f"onnxruntime has no int8-weight kernel for {consumer.op_type}")
    if spec.grid_type != "int8":
        raise NotServedError(f"its levels are {spec.grid_type}")
    if store.quantized.dtype != ir.DataType.FLOAT:
        raise NotServedError(f"its consumers compute with {store.quantized.dtype.name.lower()}")
    form(store, consumer, index, pays)


def _gemm(store: WeightStore, gemm: ir.Node, index: int, pays: bool) -> None:
    """Gemm(x, W, bias) -> MatMul(x, DequantizeLinear(levels)) + bias: onnxruntime's 8-bit kernel."""
    attributes = {name: gemm.attributes[name].value for name in gemm.attributes}
    plain = (
        attributes.get("transA", 0) == 0
        and attributes.get("alpha", 1.0) == 1
        and attributes.get("beta", 1.0) == 1
    )
    if index != 1 or not plain:
        raise NotServedError("the weight is not the plain right-hand side of the Gemm")
    weight = _dequantized(store, transpose=attributes.get("transB", 0) == 1, pays=pays)
    x, bias, output = gemm.inputs[0], gemm.inputs[2] if len(gemm.inputs) > 2 else None, gemm.outputs[0]
    assert x is not None
    result = store.node("MatMul", [x, weight], "matmul", ir.DataType.FLOAT, output.shape)
    if bias is not None:
        fusible = any(node.op_type in _GEMM_ACTIVATIONS for node, _ in output.uses())
        if fusible and bias.const_value is not None and not bias.is_graph_input():
            # Add and activation would become one Gemm and lose the 8-bit kernel
            number = store.count("negated_bias")
            negated = store.constant(f"negated_bias{number}", -bias.const_value.numpy())
            result = store.node("Sub", [result, negated], "biased", ir.DataType.FLOAT, output.shape)
        else:
            result = store.node("Add", [result, bias], "biased", ir.DataType.FLOAT, output.shape)
    _replace(store.graph, output, result)


def _matmul(store: WeightStore, matmul: ir.Node, index: int, pays: bool) -> None:
    """MatMul(x, W), W [inputs, outputs] -> MatMul(x, DequantizeLinear(levels))."""
    if index != 1:
        raise NotServedError("the weight is the left-hand side of the MatMul")
    matmul.replace_input_with(1, _dequantized(store, transpose=False, pays=pays))


def _transpose(store: WeightStore, transpose: ir.Node, index: int, pays: bool) -> None:
    """MatMul(x, Transpose(W)), W [outputs, inputs] -> MatMul(x, DequantizeLinear(Transpose(levels)))."""
    uses = list(transpose.outputs[0].uses())
    order = list(transpose.attributes.get_ints("perm", [1, 0]))
    if (
        order != [1, 0]
        or transpose.outputs[0].is_graph_output()
        or any(node.op_type != "MatMul" or place != 1 for node, place in uses)
    ):
        raise NotServedError("the transposed weight is not only the right-hand side of a MatMul")
    for node, place in uses:
        node.replace_input_with(place, _dequantized(store, transpose=True, pays=pays))
    store.graph.remove(transpose, safe=True)


def _gather(store: WeightStore, gather: ir.Node, index: int, pays: bool) -> None:
    """Gather(W, indices) -> rows of int8 levels times rows of steps: no embedding is decoded as a whole."""
    quantized, output, indices = store.quantized, gather.outputs[0], gather.inputs[1]
    if index != 0 or gather.attributes.get_int("axis", 0) != 0 or quantized.channel_axis != 0:
        raise NotServedError("the weight is not gathered by its rows")
    if len(quantized.shape) != 2:
        raise NotServedError("the weight is not a matrix")
    assert indices is not None
    rows = store.node(
        "Gather", [store.levels(), indices], "row_levels", ir.DataType.INT8, output.shape, axis=0
    )
    levels = store.node(
        "Cast", [rows], "float_row_levels", ir.DataType.FLOAT, output.shape, to=ir.DataType.FLOAT
    )
    kind = quantized.spec.steps.kind
    step = store.constant("step", quantized.step) if kind == "group" else store.wide_step()
    if kind != "tensor":
        step = store.node("Gather", [step, indices], "row_step", ir.DataType.FLOAT, None, axis=0)
    if kind == "group":
        groups = store.group_of_input(quantized.shape[1])
        step = store.node("Gather", [step, groups], "wide_row_step", ir.DataType.FLOAT, output.shape, axis=-1)
    _replace(store.graph, output, store.node("Mul", [levels, step], "rows", ir.DataType.FLOAT, output.shape))


FORMS: dict[str, Callable[[WeightStore, ir.Node, int, bool], None]] = {
    "Gather": _gather,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Transpose": _transpose,
}
"""Consumer of a weight -> how it is served from int8 levels."""


SMALLEST_INT8_MATRIX = 2**17
"""Weights from which "auto" prefers the 8-bit kernel: it reads a quarter of the bytes, but its call costs
more. At batch 1 they break even at about 10^5 weights."""

_GEMM_ACTIVATIONS = {
    "Elu",
    "HardSigmoid",
    "LeakyRelu",
    "Relu",
    "Selu",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Tanh",
    "ThresholdedRelu",
}
_FUSED_GROUPS = {16, 32, 64, 128, 256}
_BLOCKED_OPSET = 21
"""The first in which `DequantizeLinear` has blocks."""


def _dequantized(store: WeightStore, *, transpose: bool, pays: bool) -> ir.Value:
    """DequantizeLinear of int8 levels as [inputs, outputs], in the shapes that onnxruntime fuses."""
    quantized = store.quantized
    steps, step = quantized.spec.steps, quantized.step
    if len(quantized.shape) != 2 or quantized.channel_axis != (0 if transpose else 1):
        raise NotServedError("its channels are not the outputs of the MatMul")
    outputs = quantized.shape[quantized.channel_axis]
    inputs = quantized.size // max(outputs, 1)
    if pays and inputs * outputs < SMALLEST_INT8_MATRIX:
        raise NotServedError(f"{inputs * outputs} weights are too few for the 8-bit kernel to pay")
    if steps.kind == "group" and (steps.group_size not in _FUSED_GROUPS or inputs % steps.group_size):
        raise NotServedError(
            f"the 8-bit kernel does not take groups of {steps.group_size} in {inputs} inputs"
        )
    if steps.kind == "group" and store.graph.opset_imports[""] < _BLOCKED_OPSET:
        raise NotServedError(f"groups need opset {_BLOCKED_OPSET}")
    levels = store.levels()
    if transpose:
        levels = store.node(
            "Transpose", [levels], "matrix_levels", ir.DataType.INT8, (inputs, outputs), perm=[1, 0]
        )
    if steps.kind == "group":
        scale = np.ascontiguousarray(step.T)
        layout: dict[str, int | list[int]] = {"axis": 0, "block_size": steps.group_size}
    else:
        scale, layout = np.broadcast_to(step.reshape(-1), (outputs,)).copy(), {"axis": 1}
    number = store.count("scale")
    return store.node(
        "DequantizeLinear",
        [levels, store.constant(f"scale{number}", scale)],
        "dequantized",
        ir.DataType.FLOAT,
        (inputs, outputs),
        domain="",
        **layout,
    )


def _replace(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Let `new` stand for `old` everywhere, and remove what produced `old`."""
    producer = old.producer()
    assert producer is not None
    stand_in(old, new)
    graph.remove(producer, safe=True)
