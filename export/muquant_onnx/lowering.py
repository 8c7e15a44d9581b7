"""Replace float weights in an ONNX graph by packed codes and the nodes that decode them.

The graph may come from anywhere: a weight is any `ir.Value`, and each of its uses gets the cheapest form that
its consumer and the policy allow. A new form is one function and one line in `FORMS`.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from muquant.errors import InputError
from muquant.tensor import QuantizedTensor
from muquant_onnx.decode_function import DOMAIN, DOMAIN_VERSION, Decoder

Policy = Literal["auto", "float", "int8"]


@dataclass(frozen=True)
class Served:
    """How one use of a weight is served.

    Attributes:
        weight: name of the weight.
        consumer: operator that uses it.
        form: "float" (decoded to float32) or "int8" (decoded to int8 levels that the consumer keeps).
        reason: why a policy that prefers int8 was not followed, or "".
    """

    weight: str
    consumer: str
    form: str
    reason: str = ""


class NotServedError(Exception):
    """An int8 form does not fit a use of a weight; the message says why."""


def check_policy(policy: str) -> Policy:
    """Return `policy` if there is one of that name."""
    if policy not in get_args(Policy):
        raise InputError(f"policy {policy!r} is unknown; expected one of {', '.join(get_args(Policy))}")
    return policy  # type: ignore[return-value]


def lower(
    model: ir.Model, weights: Mapping[ir.Value, tuple[str, QuantizedTensor]], policy: Policy
) -> list[Served]:
    """Serve every use of `weights` from packed codes, in place, and add the functions that decode them.

    Args:
        model: its main graph uses the weights; what produced them is left for the caller to remove.
        weights: value -> name and quantized weight; values of one name share one set of codes.
        policy: "float" decodes to float32; "int8" keeps int8 levels wherever an int8 form fits; "auto" where
            it also pays.
    """
    graph = model.graph
    stores: dict[str, _Store] = {}
    served = []
    for value, (name, quantized) in weights.items():
        store = stores.setdefault(name, _Store(graph, name, quantized))
        floats: list[tuple[ir.Node, int]] = []
        for consumer, index in list(value.uses()):
            try:
                if policy == "float":
                    raise NotServedError("")
                if consumer.graph is not graph:
                    raise NotServedError("it is used inside a branch or a loop")
                _serve_int8(store, consumer, index, policy)
                served.append(Served(name, consumer.op_type, "int8"))
            except NotServedError as why:
                floats.append((consumer, index))
                served.append(Served(name, consumer.op_type, "float", str(why)))
        for consumer, index in floats:
            consumer.replace_input_with(index, store.decoded())
        if value.is_graph_output():
            served.append(Served(name, "output", "float", "" if policy == "float" else "it is an output"))
            shape = quantized.shape
            _stand_in(value, store.node("Identity", [store.decoded()], "output", ir.DataType.FLOAT, shape))
    for value in [
        value for value in graph.initializers.values() if not value.uses() and not value.is_graph_output()
    ]:
        assert value.name is not None
        del graph.initializers[value.name]  # biases that a form has replaced
    for decoder in dict.fromkeys(Decoder.of(store.quantized.spec) for store in stores.values()):
        function = decoder.function()
        model.functions[function.identifier()] = function
    graph.opset_imports[DOMAIN] = DOMAIN_VERSION
    graph.sort()
    return served


@dataclass
class _Store:
    """The initializers of one quantized weight, made on demand, and the nodes that decode them."""

    graph: ir.Graph
    name: str
    quantized: QuantizedTensor
    _initializers: dict[str, ir.Value] = field(default_factory=dict)
    _decoded: ir.Value | None = None
    _counts: dict[str, int] = field(default_factory=dict)

    def count(self, name: str) -> str:
        """Return a suffix that makes `name` unique within this weight: none for the first, then .1, .2 ..."""
        number = self._counts.get(name, 0)
        self._counts[name] = number + 1
        return f".{number}" if number else ""

    def constant(self, part: str, array: NDArray[Any]) -> ir.Value:
        """Return the initializer NAME.part."""
        if part not in self._initializers:
            name = f"{self.name}.{part}"
            value = ir.Value(
                name=name,
                type=ir.TensorType(ir.DataType.from_numpy(array.dtype)),
                shape=ir.Shape(array.shape),
                const_value=ir.tensor(array, name=name),
            )
            self.graph.register_initializer(value)
            self._initializers[part] = value
        return self._initializers[part]

    def node(
        self,
        op: str,
        inputs: list[ir.Value],
        name: str,
        dtype: ir.DataType,
        shape: Iterable[int | str | ir.SymbolicDim | None] | None,
        domain: str = "",
        **attributes: int | list[int],
    ) -> ir.Value:
        """Append a node with one output, called NAME.name, of stated type and shape."""
        label = f"{self.name}.{name}{self.count(name)}"
        output = ir.Value(
            name=label, type=ir.TensorType(dtype), shape=shape if shape is None else ir.Shape(shape)
        )
        self.graph.append(ir.node(op, inputs, attributes, domain=domain, outputs=[output], name=label))
        return output

    def levels(self) -> ir.Value:
        """Decode to integer levels in the weight's shape; each caller gets levels of its own.

        onnxruntime merges equal computations, and fuses no weight that two nodes share. So a decoder after
        the first is followed by a slice that cuts nothing, past the end by a number of its own: equal values,
        another computation.
        """
        spec, shape = self.quantized.spec, self.quantized.shape
        decoder = Decoder.of(spec)
        inputs = [
            self.constant("packed", self.quantized.packed()),
            self.constant("mu", np.array(spec.expansion_mu)),
            self.constant("shape", np.array(shape, np.int64)),
        ]
        levels = self.node(decoder.name, inputs, "levels", decoder.dtype, shape, domain=DOMAIN)
        number = self._counts["levels"] - 1
        if number:
            start = self.constant("start", np.zeros(1, np.int64))
            end = self.constant(f"end.{number}", np.array([shape[0] + number]))
            levels = self.node("Slice", [levels, start, end], "own_levels", decoder.dtype, shape)
        return levels

    def decoded(self) -> ir.Value:
        """Decode to the float32 weight, float32(k) * step; made once, shared by all float uses."""
        if self._decoded is None:
            shape = self.quantized.shape
            levels = self.node(
                "Cast", [self.levels()], "float_levels", ir.DataType.FLOAT, shape, to=ir.DataType.FLOAT
            )
            self._decoded = self.node("Mul", [levels, self.wide_step()], "decoded", ir.DataType.FLOAT, shape)
        return self._decoded

    def wide_step(self) -> ir.Value:
        """The steps in a shape that broadcasts against the weight."""
        quantized, shape, axis = self.quantized, self.quantized.shape, self.quantized.channel_axis
        step = quantized.step.numpy()
        kind = quantized.spec.steps.kind
        if kind == "tensor":
            return self.constant("step", step.reshape(()))
        if kind == "channel":
            return self.constant("step", step.reshape([-1 if i == axis else 1 for i in range(len(shape))]))
        others = [size for i, size in enumerate(shape) if i != axis]
        inputs = int(np.prod(others))
        wide = self.node(
            "Gather",
            [self.constant("step", step), self.group_of_input(inputs)],
            "step_matrix",
            ir.DataType.FLOAT,
            (shape[axis], inputs),
            axis=1,
        )
        moved = (shape[axis], *others)
        wide = self.node(
            "Reshape",
            [wide, self.constant("step_shape", np.array(moved, np.int64))],
            "step_moved",
            ir.DataType.FLOAT,
            moved,
        )
        if axis:
            order = [*range(1, axis + 1), 0, *range(axis + 1, len(shape))]
            wide = self.node("Transpose", [wide], "wide_step", ir.DataType.FLOAT, shape, perm=order)
        return wide

    def group_of_input(self, inputs: int) -> ir.Value:
        """Index of the group that each input belongs to, int64 [inputs]."""
        bounds = [
            self.constant(part, np.array(number, np.int64))
            for part, number in (
                ("first_input", 0),
                ("inputs", inputs),
                ("next_input", 1),
                ("group_size", self.quantized.spec.steps.group_size),
            )
        ]
        place = self.node("Range", bounds[:3], "input", ir.DataType.INT64, (inputs,))
        return self.node("Div", [place, bounds[3]], "group", ir.DataType.INT64, (inputs,))


def _serve_int8(store: _Store, consumer: ir.Node, index: int, policy: Policy) -> None:
    """Serve one use by an int8 form, or raise NotServedError and leave the graph as it was."""
    form = FORMS.get(consumer.op_type) if consumer.domain == "" else None
    spec = store.quantized.spec
    if form is None:
        raise NotServedError(f"onnxruntime has no int8-weight kernel for {consumer.op_type}")
    if spec.grid_type != "int8":
        raise NotServedError(f"its levels are {spec.grid_type}")
    form(store, consumer, index, policy)


def _gemm(store: _Store, gemm: ir.Node, index: int, policy: Policy) -> None:
    """Gemm(x, W, bias) -> MatMul(x, DequantizeLinear(levels)) + bias: onnxruntime's 8-bit kernel."""
    attributes = {name: gemm.attributes[name].value for name in gemm.attributes}
    plain = (
        attributes.get("transA", 0) == 0
        and attributes.get("alpha", 1.0) == 1
        and attributes.get("beta", 1.0) == 1
    )
    if index != 1 or not plain:
        raise NotServedError("the weight is not the plain right-hand side of the Gemm")
    weight = _dequantized(store, transpose=attributes.get("transB", 0) == 1, policy=policy)
    x, bias, output = gemm.inputs[0], gemm.inputs[2] if len(gemm.inputs) > 2 else None, gemm.outputs[0]
    assert x is not None
    result = store.node("MatMul", [x, weight], "matmul", ir.DataType.FLOAT, output.shape)
    if bias is not None:
        fusible = any(node.op_type in _GEMM_ACTIVATIONS for node, _ in output.uses())
        if (
            fusible and bias.const_value is not None
        ):  # Add and activation would become one Gemm and lose the 8-bit kernel
            negated = store.constant("negated_bias", -bias.const_value.numpy())
            result = store.node("Sub", [result, negated], "biased", ir.DataType.FLOAT, output.shape)
        else:
            result = store.node("Add", [result, bias], "biased", ir.DataType.FLOAT, output.shape)
    _replace(store.graph, output, result)


def _matmul(store: _Store, matmul: ir.Node, index: int, policy: Policy) -> None:
    """MatMul(x, W), W [inputs, outputs] -> MatMul(x, DequantizeLinear(levels))."""
    if index != 1:
        raise NotServedError("the weight is the left-hand side of the MatMul")
    matmul.replace_input_with(1, _dequantized(store, transpose=False, policy=policy))


def _transpose(store: _Store, transpose: ir.Node, index: int, policy: Policy) -> None:
    """MatMul(x, Transpose(W)), W [outputs, inputs] -> MatMul(x, DequantizeLinear(Transpose(levels)))."""
    uses = list(transpose.outputs[0].uses())
    swapped = len(store.quantized.shape) == 2 and list(transpose.attributes.get_ints("perm", [1, 0])) == [
        1,
        0,
    ]
    if (
        not swapped
        or transpose.outputs[0].is_graph_output()
        or any(node.op_type != "MatMul" or place != 1 for node, place in uses)
    ):
        raise NotServedError("the transposed weight is not only the right-hand side of a MatMul")
    for node, place in uses:
        node.replace_input_with(place, _dequantized(store, transpose=True, policy=policy))
    store.graph.remove(transpose, safe=True)


def _gather(store: _Store, gather: ir.Node, index: int, policy: Policy) -> None:
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
    step = store.constant("step", quantized.step.numpy()) if kind == "group" else store.wide_step()
    if kind != "tensor":
        step = store.node("Gather", [step, indices], "row_step", ir.DataType.FLOAT, None, axis=0)
    if kind == "group":
        groups = store.group_of_input(quantized.shape[1])
        step = store.node("Gather", [step, groups], "wide_row_step", ir.DataType.FLOAT, output.shape, axis=-1)
    _replace(store.graph, output, store.node("Mul", [levels, step], "rows", ir.DataType.FLOAT, output.shape))


FORMS: dict[str, Callable[[_Store, ir.Node, int, Policy], None]] = {
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


def _dequantized(store: _Store, *, transpose: bool, policy: Policy) -> ir.Value:
    """DequantizeLinear of int8 levels as [inputs, outputs], in the shapes that onnxruntime fuses."""
    quantized = store.quantized
    steps, step = quantized.spec.steps, quantized.step.numpy()
    if len(quantized.shape) != 2 or quantized.channel_axis != (0 if transpose else 1):
        raise NotServedError("its channels are not the outputs of the MatMul")
    outputs = quantized.shape[quantized.channel_axis]
    inputs = quantized.codes.numel() // max(outputs, 1)
    if policy == "auto" and inputs * outputs < SMALLEST_INT8_MATRIX:
        raise NotServedError(f"{inputs * outputs} weights are too few for the 8-bit kernel to pay")
    if steps.kind == "group" and (steps.group_size not in _FUSED_GROUPS or inputs % steps.group_size):
        raise NotServedError(
            f"the 8-bit kernel does not take groups of {steps.group_size} in {inputs} inputs"
        )
    levels = store.levels()
    if transpose:
        levels = store.node(
            "Transpose", [levels], "matrix_levels", ir.DataType.INT8, (inputs, outputs), perm=[1, 0]
        )
    if steps.kind == "group":
        scale, axis, block = np.ascontiguousarray(step.T), 0, steps.group_size
    else:
        scale, axis, block = np.broadcast_to(step.reshape(-1), (outputs,)).copy(), 1, 0
    number = store.count("scale")
    return store.node(
        "DequantizeLinear",
        [levels, store.constant(f"scale{number}", scale)],
        "dequantized",
        ir.DataType.FLOAT,
        (inputs, outputs),
        axis=axis,
        block_size=block,
    )


def _replace(graph: ir.Graph, old: ir.Value, new: ir.Value) -> None:
    """Let `new` stand for `old` everywhere, and remove what produced `old`."""
    producer = old.producer()
    assert producer is not None
    _stand_in(old, new)
    graph.remove(producer, safe=True)


def _stand_in(old: ir.Value, new: ir.Value) -> None:
    """Let `new` stand for `old` everywhere, under the name of `old` where that is an output of the graph."""
    if old.is_graph_output():
        name = old.name
        old.name = f"{name}.replaced"
        new.name = name
    ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
