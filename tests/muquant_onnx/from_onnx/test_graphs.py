"""One table of foreign graphs: what is found, and what onnxruntime computes from the file."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import muquant as mq
from muquant.format.channels import Channels
from muquant.quantization.quantize import quantize
from muquant_onnx import compress_onnx, decode_file, load_session
from muquant_onnx.serving.serve import count_kernels
from muquant_onnx.serving.sessions import running_operators

Array = NDArray[Any]
RANDOM = np.random.default_rng(0)
FLOAT, HALF, BRAIN = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.BFLOAT16


def weight(name: str, *shape: int, dtype: int = FLOAT) -> onnx.TensorProto:
    values = RANDOM.standard_normal(shape) * 0.1
    return helper.make_tensor(name, dtype, shape, values.reshape(-1).tolist())


def node(op: str, inputs: str, output: str = "y", **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], name=f"the_{op.lower()}_{output}", **attributes)


@dataclass(frozen=True)
class Case:
    """A graph from x to y, and the channel axis of each of its weights by name."""

    nodes: Callable[[], list[onnx.NodeProto]]
    weights: Callable[[], list[onnx.TensorProto]]
    x: tuple[int, ...]
    axes: dict[str, int | Channels]
    tokens: int = 0
    dtype: int = FLOAT
    opset: int = 17
    y: tuple[int, ...] | None = None

    def model(self) -> onnx.ModelProto:
        graph = helper.make_graph(
            self.nodes(),
            "g",
            [helper.make_tensor_value_info("x", TensorProto.INT64 if self.tokens else self.dtype, self.x)],
            [helper.make_tensor_value_info("y", self.dtype, self.y)],
            self.weights(),
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=8)
        return onnx.shape_inference.infer_shapes(model)  # gives y its shape

    def inputs(self) -> dict[str, Array]:
        random = np.random.default_rng(1)
        if self.tokens:
            return {"x": random.integers(0, self.tokens, self.x)}
        dtype = np.float16 if self.dtype == HALF else np.float32
        return {"x": random.standard_normal(self.x).astype(dtype)}


def constant(name: str, *shape: int) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=weight("unnamed", *shape))


def numbers(name: str, *values: int) -> onnx.TensorProto:
    return numpy_helper.from_array(np.array(values, np.int64), name)


def scalar(name: str, value: float) -> onnx.TensorProto:
    return numpy_helper.from_array(
        np.array(value, np.float32 if isinstance(value, float) else np.int64), name
    )


def branches(inside: bool) -> list[onnx.NodeProto]:
    """An If whose branches multiply by a weight of their own, or one of the main graph."""
    output = [helper.make_tensor_value_info("b", FLOAT, (5, 12))]
    kept = [weight("w", 24, 12)] if inside else []
    then = helper.make_graph([node("MatMul", "x w", "b")], "then", [], output, kept)
    other = helper.make_graph([constant("c", 24, 12), node("MatMul", "x c", "b")], "else", [], output)
    return [
        node("ReduceSum", "x", "sum", keepdims=0),
        node("Greater", "sum zero", "positive"),
        helper.make_node("If", ["positive"], ["y"], then_branch=then, else_branch=other),
    ]


def loop() -> list[onnx.NodeProto]:
    body = helper.make_graph(
        [node("Identity", "going", "go"), node("MatMul", "state w", "next")],
        "body",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("going", TensorProto.BOOL, []),
            helper.make_tensor_value_info("state", FLOAT, (5, 24)),
        ],
        [
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", FLOAT, (5, 24)),
        ],
        [weight("w", 24, 24)],
    )
    return [helper.make_node("Loop", ["count", "", "x"], ["y"], body=body)]


CASES = {
    "matmul": Case(lambda: [node("MatMul", "x w")], lambda: [weight("w", 24, 12)], (5, 24), {"w": 1}),
    "matmul-left": Case(lambda: [node("MatMul", "w x")], lambda: [weight("w", 12, 24)], (24, 5), {"w": 0}),
    "matmul-batched": Case(
        lambda: [node("MatMul", "x w")], lambda: [weight("w", 3, 24, 12)], (3, 5, 24), {"w": Channels((0, 2))}
    ),
    "matmul-opset-13": Case(
        lambda: [node("MatMul", "x w")], lambda: [weight("w", 24, 12)], (5, 24), {"w": 1}, opset=13
    ),
    "matmul-opset-24": Case(
        lambda: [node("MatMul", "x w")], lambda: [weight("w", 24, 12)], (5, 24), {"w": 1}, opset=24
    ),
    "gemm": Case(
        lambda: [node("Gemm", "x w b")], lambda: [weight("w", 24, 12), weight("b", 12)], (5, 24), {"w": 1}
    ),
    "gemm-relu": Case(
        lambda: [node("Gemm", "x w b", "h", transB=1), node("Relu", "h")],
        lambda: [weight("w", 12, 24), weight("b", 12)],
        (5, 24),
        {"w": 0},
    ),
    "gemm-left": Case(
        lambda: [node("Gemm", "w x", transA=1, alpha=0.5)], lambda: [weight("w", 24, 12)], (24, 5), {"w": 1}
    ),
    "conv1d": Case(lambda: [node("Conv", "x w")], lambda: [weight("w", 8, 4, 5)], (2, 4, 9), {"w": 0}),
    "conv2d": Case(
        lambda: [node("Conv", "x w b", pads=[1, 1, 1, 1])],
        lambda: [weight("w", 8, 4, 3, 3), weight("b", 8)],
        (2, 4, 6, 6),
        {"w": 0},
    ),
    "conv2d-grouped": Case(
        lambda: [node("Conv", "x w", group=2)], lambda: [weight("w", 8, 2, 3, 3)], (2, 4, 6, 6), {"w": 0}
    ),
    "conv2d-depthwise": Case(
        lambda: [node("Conv", "x w", group=4)], lambda: [weight("w", 4, 1, 3, 3)], (2, 4, 6, 6), {"w": 0}
    ),
    "conv3d": Case(
        lambda: [node("Conv", "x w")], lambda: [weight("w", 6, 2, 2, 3, 3)], (1, 2, 3, 4, 4), {"w": 0}
    ),
    "conv-transpose": Case(
        lambda: [node("ConvTranspose", "x w")], lambda: [weight("w", 4, 6, 3, 3)], (2, 4, 4, 4), {"w": 1}
    ),
    "conv-transpose-grouped": Case(
        lambda: [node("ConvTranspose", "x w", group=2)],
        lambda: [weight("w", 4, 3, 3)],
        (2, 4, 5),
        {"w": Channels((1,), 2)},
    ),
    "embedding": Case(
        lambda: [node("Gather", "w x")], lambda: [weight("w", 40, 16)], (2, 6), {"w": 0}, tokens=40
    ),
    "tied": Case(
        lambda: [node("Gather", "w x", "h"), node("Transpose", "w", "t", perm=[1, 0]), node("MatMul", "h t")],
        lambda: [weight("w", 40, 16)],
        (2, 6),
        {"w": 0},
        tokens=40,
    ),
    "shared": Case(
        lambda: [node("MatMul", "x w", "h"), node("MatMul", "h w")],
        lambda: [weight("w", 24, 24)],
        (5, 24),
        {"w": 1},
    ),
    "constant": Case(lambda: [constant("w", 24, 12), node("MatMul", "x w")], list, (5, 24), {"w": 1}),
    "identity": Case(
        lambda: [node("Identity", "w", "i"), node("Identity", "i", "j"), node("MatMul", "x j")],
        lambda: [weight("w", 24, 12)],
        (5, 24),
        {"w": 1},
    ),
    "transpose": Case(
        lambda: [node("Transpose", "w", "t"), node("MatMul", "x t")],
        lambda: [weight("w", 12, 24)],
        (5, 24),
        {"w": 0},
    ),
    "transpose-conv": Case(
        lambda: [node("Transpose", "w", "t", perm=[3, 2, 0, 1]), node("Conv", "x t")],
        lambda: [weight("w", 3, 3, 4, 8)],
        (2, 4, 6, 6),
        {"w": 3},
    ),
    "reshape": Case(
        lambda: [node("Reshape", "w shape", "r"), node("MatMul", "x r")],
        lambda: [weight("w", 4, 6, 12), numbers("shape", -1, 12)],
        (5, 24),
        {"w": 2},
    ),
    "transpose-reshape": Case(
        lambda: [
            node("Transpose", "w", "t", perm=[1, 2, 0]),
            node("Reshape", "t shape", "r"),
            node("MatMul", "x r"),
        ],
        lambda: [weight("w", 12, 4, 6), numbers("shape", 24, 12)],
        (5, 24),
        {"w": 0},
    ),
    "half-behind-a-cast": Case(
        lambda: [node("Cast", "w", "c", to=FLOAT), node("MatMul", "x c")],
        lambda: [weight("w", 24, 12, dtype=HALF)],
        (5, 24),
        {"w": 1},
    ),
    "bfloat16-behind-a-cast": Case(
        lambda: [node("Cast", "w", "c", to=FLOAT), node("MatMul", "x c")],
        lambda: [weight("w", 24, 12, dtype=BRAIN)],
        (5, 24),
        {"w": 1},
    ),
    "half": Case(
        lambda: [node("MatMul", "x w")],
        lambda: [weight("w", 24, 12, dtype=HALF)],
        (5, 24),
        {"w": 1},
        dtype=HALF,
    ),
    "if-inside": Case(lambda: branches(True), lambda: [scalar("zero", 0.0)], (5, 24), {"c": 1, "w": 1}),
    "if-outside": Case(
        lambda: branches(False),
        lambda: [weight("w", 24, 12), scalar("zero", 0.0)],
        (5, 24),
        {"c": 1, "w": 1},
    ),
    "loop": Case(loop, lambda: [scalar("count", 3)], (5, 24), {"w": 1}, y=(5, 24)),
}


def tensors(graph: onnx.GraphProto) -> Iterator[tuple[str, onnx.TensorProto]]:
    """All constants of a graph and its branches, by the name of the value."""
    for tensor in graph.initializer:
        yield tensor.name, tensor
    for each in graph.node:
        for attribute in each.attribute:
            if each.op_type == "Constant":
                yield each.output[0], attribute.t
            if attribute.HasField("g"):
                yield from tensors(attribute.g)


def patched(model: onnx.ModelProto, weights: dict[str, Array]) -> onnx.ModelProto:
    """The original graph with other weights, in the types that it has."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for name, tensor in tensors(copy.graph):
        if name in weights:
            dtype = helper.tensor_dtype_to_np_dtype(tensor.data_type)
            tensor.CopyFrom(numpy_helper.from_array(weights[name].astype(dtype), tensor.name))
    return copy


def run(
    path: Path, inputs: dict[str, Array], setting: str = "unoptimized", policy: str | None = None
) -> Array:
    result: Array = load_session(path, setting, policy=policy).run(None, inputs)[0]
    return result


def close(found: Array, expected: Array, tolerance: float) -> None:
    assert found.dtype == expected.dtype
    wide = expected.astype(np.float64)
    np.testing.assert_allclose(found.astype(np.float64), wide, rtol=0, atol=tolerance * np.abs(wide).max())


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["float", "int8"])
@pytest.mark.parametrize("name", CASES)
def test_the_file_computes_the_graph_with_the_quantizers_weights(
    name: str, policy: str, tmp_path: Path
) -> None:
    case = CASES[name]
    model = case.model()
    onnx.save(model, tmp_path / "model.onnx")
    report = compress_onnx(tmp_path / "model.onnx", tmp_path / "small.onnx", policy=policy, flat=True)
    assert [found.source for found in report.weights] == list(case.axes)
    onnx.checker.check_model(str(tmp_path / "small.onnx"), full_check=True)

    source = {key: numpy_helper.to_array(tensor) for key, tensor in tensors(model.graph)}
    decoded = decode_file(tmp_path / "small.onnx")
    assert set(decoded) == set(case.axes)
    for key, axis in case.axes.items():
        values = torch.from_numpy(source[key].astype(np.float32))
        channels = Channels.of(axis)
        expected = (
            quantize(values, mq.MuLawSpec(), channels, "search", "balanced").tensor.dequantize().numpy()
        )
        np.testing.assert_array_equal(decoded[key].view(np.uint32), expected.view(np.uint32))

    onnx.save(patched(model, decoded), tmp_path / "patched.onnx")
    inputs = case.inputs()
    expected = run(tmp_path / "patched.onnx", inputs)
    assert np.abs(expected.astype(np.float64)).max() > 0
    tolerance = 2e-3 if case.dtype == HALF else 1e-5
    settings = ["unoptimized", "default"] if policy == "float" else ["unoptimized", "accuracy-1"]
    for setting in settings:
        close(run(tmp_path / "small.onnx", inputs, setting), expected, tolerance)
    for loaded, setting in (("float", "default"), ("int8", "accuracy-1"), ("packed", "default")):
        close(run(tmp_path / "small.onnx", inputs, setting, loaded), expected, tolerance)


INT8 = {"matmul", "matmul-opset-13", "matmul-opset-24", "gemm", "gemm-relu", "embedding", "tied", "shared"}
INT8 |= {"constant", "identity", "transpose"}


@pytest.mark.parametrize("name", CASES)
def test_int8_forms_are_used_where_they_fit(name: str, tmp_path: Path) -> None:
    onnx.save(CASES[name].model(), tmp_path / "model.onnx")
    report = compress_onnx(tmp_path / "model.onnx", tmp_path / "small.onnx", policy="int8", flat=True)
    uses = [use for found in report.weights for use in found.served]
    assert {use.form for use in uses} == ({"int8"} if name in INT8 else {"float"})
    assert all(use.reason for use in uses if use.form == "float")


@pytest.mark.parametrize("granularity", ["tensor", "group:16"])
@pytest.mark.parametrize("opset", [13, 21])
@pytest.mark.parametrize("policy", ["float", "int8"])
def test_granularities_at_any_opset(policy: str, opset: int, granularity: str, tmp_path: Path) -> None:
    graph = helper.make_graph(
        [node("MatMul", "x w")],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, (5, 32))],
        [helper.make_tensor_value_info("y", FLOAT, (5, 12))],
        [weight("w", 32, 12)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    spec = mq.MuLawSpec(4, granularity=granularity)
    report = compress_onnx(tmp_path / "model.onnx", tmp_path / "small.onnx", spec, policy=policy, flat=True)
    (use,) = report.weights[0].served
    blocked = granularity == "group:16" and opset == 13
    assert (use.form, use.reason) == (
        ("float", "groups need opset 21" if policy == "int8" else "")
        if policy == "float" or blocked
        else ("int8", "")
    )
    onnx.save(patched(model, decode_file(tmp_path / "small.onnx")), tmp_path / "patched.onnx")
    inputs = {"x": np.random.default_rng(1).standard_normal((5, 32)).astype(np.float32)}
    expected = run(tmp_path / "patched.onnx", inputs)
    for setting in ("unoptimized", "accuracy-1"):
        close(run(tmp_path / "small.onnx", inputs, setting), expected, 1e-5)


@dataclass(frozen=True)
class Product:
    """A graph of a product with a weight and what is behind it, and the operators that should run."""

    nodes: Callable[[], list[onnx.NodeProto]]
    x: tuple[int | str | None, ...] | None
    running: dict[str, int]
    bias: tuple[int, ...] = (12,)
    stored: tuple[int, int] = (32, 12)


GEMM, SUM = (
    {"MatMulNBits": 1, "ReduceSum": 1, "Gemm": 1},
    {"MatMulNBits": 1, "ReduceSum": 1, "Sum": 1, "MatMul": 1},
)
PRODUCTS = {
    "matmul": Product(lambda: [node("MatMul", "x w")], (5, 32), GEMM),
    "matmul-bias": Product(lambda: [node("MatMul", "x w", "h"), node("Add", "b h")], (5, 32), GEMM),
    "matmul-scalar": Product(lambda: [node("MatMul", "x w", "h"), node("Add", "h b")], (5, 32), SUM, bias=()),
    "matmul-number": Product(
        lambda: [node("MatMul", "x w", "h"), node("Add", "h b")], (5, 32), SUM, bias=(1,)
    ),
    "matmul-rows": Product(
        lambda: [node("MatMul", "x w", "h"), node("Add", "h b")], (5, 32), GEMM | {"Add": 1}, bias=(5, 12)
    ),
    "matmul-twice-used": Product(
        lambda: [node("MatMul", "x w", "h"), node("Add", "h b", "i"), node("Mul", "h i")],
        (5, 32),
        GEMM | {"Add": 1, "Mul": 1},
    ),
    "matmul-twice-added": Product(
        lambda: [node("MatMul", "x w", "h"), node("Add", "h h")], (5, 32), GEMM | {"Add": 1}
    ),
    "matmul-3d": Product(lambda: [node("MatMul", "x w", "h"), node("Add", "h b")], (2, 5, 32), SUM),
    "matmul-4d": Product(lambda: [node("MatMul", "x w")], (2, 1, 5, 32), SUM),
    "matmul-vector": Product(lambda: [node("MatMul", "x w", "h"), node("Add", "h b")], (32,), SUM),
    "matmul-unknown-size": Product(
        lambda: [node("MatMul", "x w", "h"), node("Add", "h b")], ("n", None, 32), SUM
    ),
    "gemm": Product(lambda: [node("Gemm", "x w b")], (5, 32), GEMM),
    "gemm-no-bias": Product(lambda: [node("Gemm", "x w")], (5, 32), GEMM),
    "gemm-row": Product(lambda: [node("Gemm", "x w b")], (5, 32), SUM, bias=(1, 12)),
    "gemm-rows": Product(lambda: [node("Gemm", "x w b")], (5, 32), SUM, bias=(5, 12)),
    "gemm-column": Product(lambda: [node("Gemm", "x w b")], (5, 32), SUM, bias=(5, 1)),
    "gemm-relu": Product(
        lambda: [node("Gemm", "x w b", "h", transB=1), node("Relu", "h")],
        ("n", 32),
        {"MatMulNBits": 1, "ReduceSum": 1, "FusedGemm": 1},
        stored=(12, 32),
    ),
    "transpose": Product(
        lambda: [node("Transpose", "w", "t", perm=[1, 0]), node("MatMul", "x t", "h"), node("Add", "h b")],
        (5, 32),
        GEMM,
        stored=(12, 32),
    ),
    "two-products": Product(
        lambda: [
            node("MatMul", "x w", "h"),
            node("Neg", "x", "z"),
            node("MatMul", "z w", "i"),
            node("Max", "h i"),
        ],
        (5, 32),
        {name: 2 * count for name, count in GEMM.items()} | {"Neg": 1, "Max": 1},
    ),
}


GRANULARITIES = "tensor", "channel", "group:16"


@pytest.mark.slow
@pytest.mark.parametrize(  # the largest form in every granularity, the others in one of them, in turn
    ("name", "grid", "levels", "granularity"),
    [
        (name, *run)
        for place, name in enumerate(PRODUCTS)
        for run in (
            *(("int4", "mid-rise", granularity) for granularity in GRANULARITIES),
            ("int4", "mid-tread", GRANULARITIES[place % 3]),
            ("int8", "mid-rise", GRANULARITIES[(place + 1) % 3]),
        )
    ],
)
def test_products_on_integer_kernels(
    name: str, grid: Any, levels: Any, granularity: str, tmp_path: Path
) -> None:
    case = PRODUCTS[name]
    assert case.x is not None
    graph = helper.make_graph(
        case.nodes(),
        "g",
        [helper.make_tensor_value_info("x", FLOAT, case.x)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [weight("w", *case.stored), weight("b", *case.bias)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(onnx.shape_inference.infer_shapes(model), tmp_path / "model.onnx")
    spec = mq.MuLawSpec(3, granularity=granularity, levels=levels, grid=grid)
    report = compress_onnx(tmp_path / "model.onnx", tmp_path / "small.onnx", spec, policy=grid, flat=True)
    assert {(use.form, use.reason) for use in report.weights[0].served} == {(grid, "")}
    onnx.checker.check_model(str(tmp_path / "small.onnx"), full_check=True)

    running = running_operators(tmp_path / "small.onnx")
    assert running["MatMulNBits"] == case.running["MatMulNBits"]
    if (grid, levels) == ("int4", "mid-rise"):
        running.pop("Reshape", 0)
        assert running == case.running
    onnx.save(patched(model, decode_file(tmp_path / "small.onnx")), tmp_path / "patched.onnx")
    shape = [size if isinstance(size, int) else 3 for size in case.x]
    inputs = {"x": np.random.default_rng(1).normal(0.5, 1, shape).astype(np.float32)}
    expected = run(tmp_path / "patched.onnx", inputs)
    for setting, tolerance in (("unoptimized", 1e-5), ("accuracy-1", 1e-5), ("default", 0.03)):
        close(run(tmp_path / "small.onnx", inputs, setting), expected, tolerance)


CLIPPED: dict[str, Callable[[], list[onnx.NodeProto]]] = {
    "relu": lambda: [node("MatMul", "x w", "h"), node("Relu", "h", "r")],
    "clip": lambda: [node("MatMul", "x w", "h"), node("Clip", "h low high", "r")],
    "relu-identity": lambda: [
        node("MatMul", "x w", "h"),
        node("Identity", "h", "i"),
        node("Relu", "i", "j"),
        node("Identity", "j", "r"),
    ],
    "plus-0-relu": lambda: [node("MatMul", "x w", "h"), node("Add", "low h", "i"), node("Relu", "i", "r")],
    "bias-relu": lambda: [node("MatMul", "x w", "h"), node("Add", "b h", "i"), node("Relu", "i", "r")],
    "bias-identity-clip": lambda: [
        node("MatMul", "x w", "h"),
        node("Add", "h b", "i"),
        node("Identity", "i", "j"),
        node("Clip", "j low high", "r"),
    ],
    "identity-rows": lambda: [
        node("MatMul", "x w", "h"),
        node("Identity", "h", "i"),
        node("Add", "i rows", "r"),
    ],
    "computed-bias-relu": lambda: [
        node("MatMul", "x w", "h"),
        node("Exp", "b", "c"),
        node("Add", "h c", "i"),
        node("Relu", "i", "r"),
    ],
    "gemm-relu": lambda: [node("Gemm", "x w", "h"), node("Relu", "h", "r")],
    "cast-relu": lambda: [
        node("MatMul", "x w", "h"),
        node("Cast", "h", "i", to=FLOAT),
        node("Relu", "i", "r"),
    ],
    "gemm-bias-clip": lambda: [node("Gemm", "x w b", "h"), node("Clip", "h low high", "r")],
    "gemm-computed-bias-relu": lambda: [
        node("Exp", "b", "c"),
        node("Gemm", "x w c", "h"),
        node("Relu", "h", "r"),
    ],
    "relu-3-axes": lambda: [
        node("Unsqueeze", "x first", "z"),
        node("MatMul", "z w", "h"),
        node("Relu", "h", "i"),
        node("Squeeze", "i first", "r"),
    ],
    "shared": lambda: [
        node("MatMul", "x w", "h"),
        node("Relu", "h", "i"),
        node("Concat", "i i i", "j", axis=1),
        node("Slice", "j first end last", "k"),
        node("MatMul", "k w", "l"),
        node("Relu", "l", "r"),
    ],
    "transpose": lambda: [
        node("Transpose", "turned", "t", perm=[1, 0]),
        node("MatMul", "x t", "h"),
        node("Relu", "h", "r"),
    ],
}


@pytest.mark.slow
@pytest.mark.parametrize("name", CLIPPED)
def test_a_product_in_front_of_a_relu_or_clip_keeps_its_kernel(name: str, tmp_path: Path) -> None:
    nodes = [*CLIPPED[name](), node("Neg", "r")]
    used = {value for each in nodes for value in each.input}
    constants = [weight("w", 32, 12), weight("turned", 12, 32), weight("b", 12), weight("rows", 5, 12)]
    constants += [scalar("low", 0.0), scalar("high", 0.5), numbers("first", 0), numbers("end", 32)]
    constants += [numbers("last", 1)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, (5, 32))],
        [helper.make_tensor_value_info("y", FLOAT, (5, 12))],
        [each for each in constants if each.name in used],
    )
    count = sum(each.op_type in ("MatMul", "Gemm") for each in nodes)
    source, small = tmp_path / "model.onnx", tmp_path / "small.onnx"
    for opset, policy, spec in (
        (13, "int8", mq.MuLawSpec(3)),
        (21, "int4", mq.MuLawSpec(3, grid="int4", levels="mid-tread")),
        (21, "int4", mq.MuLawSpec(3, grid="int4")),
    ):
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
        onnx.save(onnx.shape_inference.infer_shapes(model), source)
        compress_onnx(source, small, spec, policy=policy, flat=True)
        for loaded in (None, policy):
            assert running_operators(small, "default", loaded)["MatMulNBits"] == count
            assert count_kernels(small, loaded) == (count, 0)  # what `verify` compares
        onnx.save(patched(model, decode_file(small)), tmp_path / "patched.onnx")
        inputs = {"x": np.random.default_rng(1).normal(0.5, 1, (5, 32)).astype(np.float32)}
        expected = run(tmp_path / "patched.onnx", inputs)
        assert len(np.unique(expected)) > 5
        for setting, tolerance in (("unoptimized", 1e-5), ("accuracy-1", 1e-5), ("default", 0.05)):
            close(run(small, inputs, setting), expected, tolerance)
        close(run(small, inputs, "accuracy-1", policy), expected, 1e-5)


@pytest.mark.parametrize(
    ("grid", "granularity", "opset", "served"),
    [
        ("int4", "channel", 17, ("int8", "int4 needs opset 21")),
        ("int4", "group:16", 17, ("float", "int4 needs opset 21; groups need opset 21")),
        ("int4", "group:12", 21, ("float", "onnxruntime's kernels do not take groups of 12 in 32 inputs")),
        ("int8", "channel", 21, ("int8", "its levels are on the int8 grid")),
        ("int16", "channel", 21, ("float", "its levels are int16")),
    ],
)
def test_what_the_4_bit_kernel_does_not_take_has_a_reason(
    grid: Any, granularity: str, opset: int, served: tuple[str, str], tmp_path: Path
) -> None:
    graph = helper.make_graph(
        [node("MatMul", "x w")],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, (5, 32))],
        [helper.make_tensor_value_info("y", FLOAT, (5, 12))],
        [weight("w", 32, 12)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.save(model, tmp_path / "model.onnx")
    spec = mq.MuLawSpec(3, granularity=granularity, grid=grid)
    report = compress_onnx(tmp_path / "model.onnx", tmp_path / "small.onnx", spec, policy="int4", flat=True)
    (use,) = report.weights[0].served
    assert (use.form, use.reason) == served


def test_an_input_of_unknown_rank_has_no_groups(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [node("Reshape", "x s", "h"), node("MatMul", "h w", "i"), node("Reshape", "i rows")],
        "g",
        [
            helper.make_tensor_value_info("x", FLOAT, (5, 32)),
            helper.make_tensor_value_info("s", TensorProto.INT64, ("rank",)),
        ],
        [helper.make_tensor_value_info("y", FLOAT, (5, 12))],
        [weight("w", 32, 12), numbers("rows", 5, 12)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    for granularity, served in (
        ("channel", ("int4", "")),
        ("group:16", ("int8", "how many axes its inputs have is not known")),
    ):
        spec = mq.MuLawSpec(3, granularity=granularity, grid="int4")
        report = compress_onnx(
            tmp_path / "model.onnx", tmp_path / "small.onnx", spec, policy="int4", flat=True
        )
        (use,) = report.weights[0].served
        assert (use.form, use.reason) == served
        onnx.save(patched(model, decode_file(tmp_path / "small.onnx")), tmp_path / "patched.onnx")
        x = np.random.default_rng(1).standard_normal((5, 32)).astype(np.float32)
        inputs = {"x": x, "s": np.array([1, 5, 32])}
        close(
            run(tmp_path / "small.onnx", inputs, "accuracy-1"), run(tmp_path / "patched.onnx", inputs), 1e-5
        )


@pytest.mark.parametrize("dtype", [HALF, BRAIN], ids=["float16", "bfloat16"])
def test_halves_are_the_decoded_float32_rounded_once_bit_for_bit(dtype: int, tmp_path: Path) -> None:
    """What the nodes give is looked at as the output of a graph without any arithmetic behind it."""
    case = Case(
        lambda: [node("Cast", "w", "c", to=FLOAT), node("MatMul", "x c")],
        lambda: [weight("w", 96, 64, dtype=dtype)],
        (5, 96),
        {"w": 1},
    )
    onnx.save(case.model(), tmp_path / "model.onnx")
    compress_onnx(tmp_path / "model.onnx", tmp_path / "small.onnx", policy="float", flat=True)
    small = onnx.load(tmp_path / "small.onnx")
    (product,) = (place for place, each in enumerate(small.graph.node) if each.input[:1] == ["x"])
    del small.graph.output[:], small.graph.node[product]
    small.graph.output.append(helper.make_tensor_value_info("c", FLOAT, (96, 64)))
    del small.graph.input[:]
    onnx.save(small, tmp_path / "weight.onnx")
    decoded = decode_file(tmp_path / "small.onnx")["w"]
    expected = decoded.astype(helper.tensor_dtype_to_np_dtype(dtype)).astype(np.float32)
    assert (expected != decoded).any()
    for setting in ("unoptimized", "default"):
        found = run(tmp_path / "weight.onnx", {}, setting)
        np.testing.assert_array_equal(found.view(np.uint32), expected.view(np.uint32))
