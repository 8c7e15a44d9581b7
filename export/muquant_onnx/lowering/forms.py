"""How a use of a weight is served from integers, by the operator that uses it.

A new form is one function here and one line in `FORMS`.
"""

from collections.abc import Callable
from functools import partial

import onnx_ir as ir

from muquant_onnx.lowering.kernels import INT4, INT8, MatrixKernel, NotServedError, Steps
from muquant_onnx.lowering.store import WeightStore, stand_in


def serve(form: str, store: WeightStore, consumer: ir.Node, index: int, *, pays: bool) -> None:
    """Serve one use of a weight by an integer form.

    Args:
        form: a name of `FORMS`.
        store: the weight.
        consumer: the node that uses it.
        index: the place among the node's inputs.
        pays: only where the form is also expected to be faster than the float one.

    Raises:
        NotServedError: the form does not fit; the graph is as it was.
    """
    serve_from = FORMS[form].get(consumer.op_type) if consumer.domain == "" else None
    quantized = store.quantized
    if serve_from is None:
        raise NotServedError(f"onnxruntime has no {form}-weight kernel for {consumer.op_type}")
    if quantized.spec.level_grid.storage != "int8":
        raise NotServedError(f"its levels are {quantized.spec.level_grid.storage}")
    if quantized.dtype != ir.DataType.FLOAT:
        raise NotServedError(f"its consumers compute with {quantized.dtype.name.lower()}")
    serve_from(store, consumer, index, pays)


def is_plain(gemm: ir.Node) -> bool:
    """Whether a Gemm is x @ W + bias, or x @ W.T + bias, and nothing is scaled."""
    factors = [gemm.attributes.get_float(name, 1.0) for name in ("alpha", "beta")]
    return gemm.attributes.get_int("transA", 0) == 0 and factors == [1, 1]


def _gemm(kernel: MatrixKernel, store: WeightStore, gemm: ir.Node, index: int, pays: bool) -> None:
    """Gemm(x, W, bias) -> MatMul(x, DequantizeLinear(levels)) + bias: an integer kernel of onnxruntime."""
    if index != 1 or not is_plain(gemm):
        raise NotServedError("the weight is not the plain right-hand side of the Gemm")
    transpose = gemm.attributes.get_int("transB", 0) == 1
    x, bias, output = gemm.inputs[0], gemm.inputs[2] if len(gemm.inputs) > 2 else None, gemm.outputs[0]
    assert x is not None
    kernel.check(store, [2], transpose=transpose, pays=pays)
    result, steps = kernel.product(store, x, 2, transpose=transpose, shape=output.shape)
    if steps is not None:
        _replace(store.graph, output, _with_steps(store, result, steps, bias, rank=2))
        return
    if bias is not None:
        clipped = _is_clipped(output)
        fusible = clipped or any(node.op_type in _GEMM_ACTIVATIONS for node, _ in output.uses())
        if fusible and bias.const_value is not None and not bias.is_graph_input():
            # Add and activation would become one Gemm and lose the integer kernel
            number = store.count("negated_bias")
            negated = store.constant("negated_bias", -bias.const_value.numpy(), number)
            result = store.node("Sub", [result, negated], "biased", ir.DataType.FLOAT, output.shape)
        else:
            add = "Add" if not clipped and (bias.shape is None or len(bias.shape) == 1) else "Sum"
            result = store.node(add, [result, bias], "biased", ir.DataType.FLOAT, output.shape)
    _replace(store.graph, output, result)
    if bias is None:
        _keep_kernel(store, result)


def _matmul(kernel: MatrixKernel, store: WeightStore, matmul: ir.Node, index: int, pays: bool) -> None:
    """MatMul(x, W), W [inputs, outputs] -> MatMul(x, DequantizeLinear(levels))."""
    if index != 1:
        raise NotServedError("the weight is the left-hand side of the MatMul")
    _multiply_all(kernel, store, [matmul], transpose=False, pays=pays)


def _transpose(kernel: MatrixKernel, store: WeightStore, transpose: ir.Node, index: int, pays: bool) -> None:
    """MatMul(x, Transpose(W)), W [outputs, inputs] -> MatMul(x, DequantizeLinear(Transpose(levels)))."""
    uses = list(transpose.outputs[0].uses())
    order = list(transpose.attributes.get_ints("perm", [1, 0]))
    if (
        order != [1, 0]
        or transpose.outputs[0].is_graph_output()
        or any(node.op_type != "MatMul" or place != 1 for node, place in uses)
    ):
        raise NotServedError("the transposed weight is not only the right-hand side of a MatMul")
    _multiply_all(kernel, store, [node for node, _ in uses], transpose=True, pays=pays)
    store.graph.remove(transpose, safe=True)


def _gather(store: WeightStore, gather: ir.Node, index: int, pays: bool) -> None:
    """Gather(W, indices) -> rows of int8 levels times rows of steps: no embedding is decoded as a whole."""
    quantized, output, indices = store.quantized, gather.outputs[0], gather.inputs[1]
    if index != 0 or gather.attributes.get_int("axis", 0) != 0 or quantized.channels.axis != 0:
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
    step = store.steps(quantized.step) if kind == "group" else store.wide_step()
    if kind != "tensor":
        step = store.node("Gather", [step, indices], "row_step", ir.DataType.FLOAT, None, axis=0)
    if kind == "group":
        groups = store.group_of_input(quantized.shape[1])
        step = store.node("Gather", [step, groups], "wide_row_step", ir.DataType.FLOAT, output.shape, axis=-1)
    _replace(store.graph, output, store.node("Mul", [levels, step], "rows", ir.DataType.FLOAT, output.shape))


FORMS: dict[str, dict[str, Callable[[WeightStore, ir.Node, int, bool], None]]] = {
    "int8": {
        "Gather": _gather,
        "Gemm": partial(_gemm, INT8),
        "MatMul": partial(_matmul, INT8),
        "Transpose": partial(_transpose, INT8),
    },
    "int4": {
        "Gemm": partial(_gemm, INT4),
        "MatMul": partial(_matmul, INT4),
        "Transpose": partial(_transpose, INT4),
    },
}
"""Form -> consumer of a weight -> how it is served."""


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


def _multiply_all(
    kernel: MatrixKernel, store: WeightStore, products: list[ir.Node], *, transpose: bool, pays: bool
) -> None:
    """Serve MatMuls by their right-hand sides, all or, where the kernel does not take one, none."""
    inputs = [x for node in products if (x := node.inputs[0]) is not None]
    ranks = [None if x.shape is None else len(x.shape) for x in inputs]
    kernel.check(store, ranks, transpose=transpose, pays=pays)
    for matmul, x, rank in zip(products, inputs, ranks, strict=True):
        result, steps = kernel.product(store, x, rank, transpose=transpose, shape=matmul.outputs[0].shape)
        if steps is None:
            _replace(store.graph, matmul.outputs[0], result)
            _keep_kernel(store, result)
            continue
        output, bias, add = matmul.outputs[0], None, _bias_behind(matmul)
        if add is not None:
            (bias,) = (value for value in add.inputs if value is not output)
            output = add.outputs[0]
        _replace(store.graph, output, _with_steps(store, result, steps, bias, rank))
        if add is not None:
            store.graph.remove(matmul, safe=True)


def _with_steps(
    store: WeightStore, product: ir.Value, steps: Steps, bias: ir.Value | None, rank: int | None
) -> ir.Value:
    """product + sums @ rows + bias, by as few nodes as onnxruntime leaves the kernel alone with.

    Where x is a matrix the kernel adds the bias, and a Gemm adds what it gives to sums @ rows, with an
    activation behind it. Elsewhere one `Sum` adds all: an `Add` of a matrix would become one Gemm with the
    product, which no kernel takes.
    """
    shape, outputs = product.shape, store.quantized.channels.count(store.quantized.shape)
    vector = bias is not None and bias.const_value is not None and not bias.is_graph_input()
    if rank == 2 and (bias is None or (vector and bias.shape == [outputs])):
        if bias is not None:
            product = store.node("Add", [product, bias], "biased", ir.DataType.FLOAT, shape)
        return store.node("Gemm", [*steps, product], "with_steps", ir.DataType.FLOAT, shape)
    added = store.node("MatMul", list(steps), "added_steps", ir.DataType.FLOAT, shape)
    terms = [product, added] if bias is None else [product, added, bias]
    return store.node("Sum", terms, "with_steps", ir.DataType.FLOAT, shape)


def _keep_kernel(store: WeightStore, product: ir.Value) -> None:
    """Part a product from what would cost it its kernel, by a `Sum`, which onnxruntime leaves alone.

    An `Add` of a matrix becomes one Gemm with it, which no kernel takes, and so does the `Add` of a bias in
    front of a Relu or Clip. With one of these right behind it a product gets no kernel either: there the Sum
    has nothing to add.
    """
    if store.kernels:
        return  # it is there already, whatever comes behind it
    for add, place in _uses(product):
        if add.op_type != "Add" or add.domain != "" or add.graph is not store.graph:
            continue
        term, other = add.inputs[place], add.inputs[1 - place]
        assert term is not None
        if other is not None and other is not term and _loses_kernel(store, product, other, add):
            total = store.node("Sum", [term, other], "added", ir.DataType.FLOAT, add.outputs[0].shape)
            _replace(store.graph, add.outputs[0], total)
    if _is_clipped(product):
        uses = list(product.uses())
        alone = store.node("Sum", [product], "alone", ir.DataType.FLOAT, product.shape)
        for node, place in uses:
            node.replace_input_with(place, alone)


def _loses_kernel(store: WeightStore, product: ir.Value, other: ir.Value, add: ir.Node) -> bool:
    """Whether the `Add` of `other` to a product costs it its kernel."""
    if other.shape is None or len(other.shape) == 2:
        return other.shape is not None
    matrix = product.shape is None or len(product.shape) == 2
    bias = other.shape == [store.quantized.channels.count(store.quantized.shape)]
    return matrix and bias and len(_uses(product)) == 1 and _is_clipped(add.outputs[0])


def _is_clipped(value: ir.Value) -> bool:
    """Whether all that becomes of a product is a Relu or Clip, with one user in turn.

    onnxruntime takes the pair for one that ends in `QuantizeLinear`, and then fuses neither.
    """
    uses = _uses(value)
    if len(uses) != 1 or uses[0][0].domain != "" or uses[0][0].op_type not in {"Relu", "Clip"}:
        return False
    clipped = uses[0][0].outputs[0]
    return len(_uses(clipped)) == 1 and not clipped.is_graph_output()


def _uses(value: ir.Value) -> list[tuple[ir.Node, int]]:
    """The uses of a value when onnxruntime has removed what does nothing: node, and place of its input."""
    found, waiting = list[tuple[ir.Node, int]](), [*value.uses()][::-1]
    while waiting:
        node, place = waiting.pop()
        if _does_nothing(node, place):
            waiting += [*node.outputs[0].uses()][::-1]
        else:
            found.append((node, place))
    return found


def _does_nothing(node: ir.Node, place: int) -> bool:
    """Whether a node gives its input number `place`, of type float32, as it is."""
    if node.domain != "" or place > 1:
        return False
    if node.op_type == "Cast":
        return node.attributes.get_int("to", 0) == ir.DataType.FLOAT
    if node.op_type in {"Identity", "Dropout"}:
        return place == 0
    neutral = {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1}.get(node.op_type)
    if neutral is None or (place == 1 and node.op_type in {"Sub", "Div"}):
        return False
    other = node.inputs[1 - place]
    if other is None or other.const_value is None or other.is_graph_input() or other.const_value.size != 1:
        return False
    return bool(other.const_value.numpy().item() == neutral)


def _bias_behind(matmul: ir.Node) -> ir.Node | None:
    """The Add of a bias, if that is all that uses the product."""
    product = matmul.outputs[0]
    uses = list(product.uses())
    if len(uses) != 1 or product.is_graph_output():
        return None
    node, place = uses[0]
    if node.op_type != "Add" or node.domain != "" or node.graph is not matmul.graph:
        return None
    bias = node.inputs[1 - place]
    if bias is None or bias.const_value is None or bias.is_graph_input() or len(bias.const_value.shape) > 1:
        return None
    return node


def _replace(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Let `new` stand for `old` everywhere, and remove what produced `old`."""
    producer = old.producer()
    assert producer is not None
    stand_in(old, new)
    graph.remove(producer, safe=True)
