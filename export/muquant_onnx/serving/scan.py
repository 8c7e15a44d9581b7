"""Products with weights that stay packed: a few rows of the weight are decoded, used, and forgotten.

`x @ W.T` becomes a Scan over blocks of rows of W, each a slice of the packed codes. What a run needs beside
its results is one block of decoded weights, not all of them.
"""

import numpy as np
import onnx_ir as ir

from muquant_onnx.format.decode_function import DOMAIN, Tables
from muquant_onnx.format.names import Part, label
from muquant_onnx.format.packed_weight import PackedWeight
from muquant_onnx.lowering.decode import SharedValues
from muquant_onnx.lowering.forms import is_plain
from muquant_onnx.lowering.lower import add_functions
from muquant_onnx.lowering.store import WeightStore, stand_in
from muquant_onnx.serving.arrays import initializer
from muquant_onnx.serving.weights import Array

BLOCK = 2**17
"""Weights that are decoded at a time, about."""


def scan_products(model: ir.Model, value: ir.Value, name: str, packed: PackedWeight) -> dict[str, Array]:
    """Let products with the weight `value`, stored as [outputs, inputs], decode it in blocks, in place.

    Other uses of it, and weights of other forms, are left as they are.

    Returns:
        the values of new initializers, as `serve` does.
    """
    rows = _rows(packed)
    if rows is None:
        return {}
    store = WeightStore(model.graph, label(name, "scan"), packed, SharedValues(model.graph))
    arrays: dict[str, Array] = {}
    for node, index in list(value.uses()):
        for matmul in _products(node, index):
            if matmul.graph is model.graph:  # what is inside a branch or a loop is decoded as a whole
                _scan(store, matmul, rows, arrays)
    if arrays:
        tables = Tables.of(packed.spec)
        add_functions(model, [tables, tables.words])
    return arrays


def _rows(packed: PackedWeight) -> int | None:
    """How many rows make a block: they divide all, and begin and end at whole bytes."""
    if (
        len(packed.shape) != 2
        or packed.channels.axis != 0
        or packed.dtype != ir.DataType.FLOAT
        or not packed.size
    ):
        return None
    outputs, inputs = packed.shape
    if inputs % (packed.spec.steps.group_size or 1):
        return None
    fitting = [
        rows
        for rows in range(1, outputs)
        if outputs % rows == 0 and rows * inputs % 8 == 0 and rows * inputs <= BLOCK
    ]
    return max(fitting, default=None)


def _products(node: ir.Node, index: int) -> list[ir.Node]:
    """The products x @ W.T that `node`, which takes W, is or makes possible."""
    output = node.outputs[0]
    if output.is_graph_output() and node.op_type == "Transpose":
        return []
    if node.op_type == "Transpose" and list(node.attributes.get_ints("perm", [1, 0])) == [1, 0]:
        uses = list(output.uses())
        alike = all(user.op_type == "MatMul" and place == 1 for user, place in uses)
        return [user for user, _ in uses] if alike else []
    dense = index == 1 and node.op_type == "Gemm" and is_plain(node)
    return [node] if dense and node.attributes.get_int("transB", 0) == 1 else []


def _scan(store: WeightStore, product: ir.Node, rows: int, arrays: dict[str, Array]) -> None:
    """Replace `product` by a Scan, and a bias that it adds by an Add."""
    packed, output = store.quantized, product.outputs[0]
    rank = None if output.shape is None else len(output.shape)
    x = product.inputs[0]
    if rank is None or x is None:
        return
    outputs, inputs = packed.shape
    blocks = outputs // rows
    codes = packed.packed.numpy().reshape(-1)[: outputs * inputs * packed.spec.bits // 8].reshape(blocks, -1)
    step = packed.step if packed.step.shape[0] == outputs else np.repeat(packed.step, outputs, 0)
    scanned = [
        initializer(store.graph, label(store.name, "packed_blocks"), lambda: codes, arrays),
        store.constant("step_blocks", step.reshape(blocks, rows, -1, 1)),
    ]
    body = _body(store, x, rows)
    stacked = store.node(
        "Scan",
        scanned,
        "blocks",
        ir.DataType.FLOAT,
        None,
        num_scan_inputs=2,
        body=body,
        scan_output_axes=[-2],
    )
    shape = store.constant(f"rank_{rank}", np.array([0] * (rank - 1) + [-1], np.int64))
    result = store.node("Reshape", [stacked, shape], "product", ir.DataType.FLOAT, output.shape)
    bias = product.inputs[2] if len(product.inputs) > 2 else None
    if bias is not None:
        result = store.node("Add", [result, bias], "biased", ir.DataType.FLOAT, output.shape)
    stand_in(output, result)
    store.graph.remove(product, safe=True)


def _body(store: WeightStore, x: ir.Value, rows: int) -> ir.Graph:
    """What decodes one block and multiplies `x`, a value of the graph outside, by it."""
    packed, tables = store.quantized, Tables.of(store.quantized.spec)
    inputs = packed.shape[1]
    groups = packed.step.shape[1]
    nbytes = rows * inputs * packed.spec.bits // 8
    codes = _value("codes", ir.DataType.UINT8, (nbytes,))
    step = _value("step", ir.DataType.FLOAT, (rows, groups, 1))
    shape = store.constant("block_shape", np.array([rows, groups, inputs // groups], np.int64))
    matrix_shape = store.constant("block_matrix_shape", np.array([rows, inputs], np.int64))
    mu = store.constant(Part.MU, np.array([[packed.spec.expansion_mu]]))
    table = store.node(tables.name, [mu], "table", tables.dtype, (1, *tables.shape), domain=DOMAIN)
    nodes: list[ir.Node] = []

    def apply(
        op: str,
        given: list[ir.Value],
        size: tuple[int, ...] | None,
        dtype: ir.DataType = ir.DataType.FLOAT,
        domain: str = "",
        **how: int | list[int],
    ) -> ir.Value:
        result = _value(f"{op}{len(nodes)}", dtype, size)
        nodes.append(ir.node(op, given, how, domain=domain, outputs=[result]))
        return result

    words_shape = tables.words.shape(nbytes)
    words = apply(tables.words.name, [codes], words_shape, ir.DataType.INT32, DOMAIN)
    found = apply("Gather", [table, words], (1, *words_shape, *tables.shape[1:]), tables.dtype, axis=1)
    levels = apply("Reshape", [found, shape], (rows, groups, inputs // groups), tables.dtype)
    floats = apply("Cast", [levels], (rows, groups, inputs // groups), to=ir.DataType.FLOAT)
    scaled = apply("Mul", [floats, step], (rows, groups, inputs // groups))
    weight = apply("Reshape", [scaled, matrix_shape], (rows, inputs))
    turned = apply("Transpose", [weight], (inputs, rows), perm=[1, 0])
    product = apply("MatMul", [x, turned], None)
    product.shape = None if x.shape is None else ir.Shape([*x.shape[:-1], rows])
    return ir.Graph([codes, step], [product], nodes=nodes, name="block")


def _value(name: str, dtype: ir.DataType, shape: tuple[int, ...] | None) -> ir.Value:
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=None if shape is None else ir.Shape(shape))
