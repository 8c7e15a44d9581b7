"""Files with onnxruntime's own operator: they answer as others do, whatever the layout, grid and steps."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from muquant import MuLawSpec
from muquant_onnx import compress_onnx, decode_file, load_session

K, N = 160, 48
FORMATS = [
    ("int8", "mid-rise", "channel"),
    ("int8", "mid-tread", "group:32"),
    ("int4", "mid-rise", "channel"),
    ("int4", "mid-rise", "group:32"),
    ("int4", "mid-tread", "tensor"),
]


def write(path: Path, *, rows: bool, bias: bool, inputs: int = K) -> None:
    """A product and a Relu, the weight [outputs, inputs] or [inputs, outputs]."""
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(N, inputs) if rows else (inputs, N)).astype(np.float32)
    constants = [numpy_helper.from_array(weight, "w")]
    if bias:
        constants.append(numpy_helper.from_array(rng.normal(size=N).astype(np.float32), "b"))
    if rows:
        nodes = [helper.make_node("Gemm", ["x", "w", "b"][: 2 + bias], ["biased"], transB=1)]
    else:
        nodes = [helper.make_node("MatMul", ["x", "w"], ["product"])]
        nodes.append(
            helper.make_node("Add" if bias else "Identity", ["product", "b"][: 1 + bias], ["biased"])
        )
    nodes.append(helper.make_node("Relu", ["biased"], ["y"]))
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", size])
        for name, size in (("x", inputs), ("y", N))
    ]
    graph = helper.make_graph(nodes, "product", values[:1], values[1:], constants)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)


def answer(path: Path, x: np.ndarray[Any, Any]) -> Any:
    return ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]


@pytest.mark.parametrize(("grid", "levels", "granularity"), FORMATS)
def test_products_are_the_operator(grid: str, levels: str, granularity: str, tmp_path: Path) -> None:
    spec = MuLawSpec(3, 20.0, levels=levels, grid=grid, granularity=granularity)  # type: ignore[arg-type]
    x = np.random.default_rng(1).normal(size=(5, K)).astype(np.float32)
    for rows, bias in itertools.product((False, True), (False, True)):
        write(tmp_path / "float.onnx", rows=rows, bias=bias)
        path = tmp_path / "kernels.onnx"
        report = compress_onnx(
            tmp_path / "float.onnx",
            path,
            spec,
            flat=True,
            observer="absmax",
            policy="int4",
            check=False,
            target="onnxruntime-kernels",
        )
        (product,) = (node for node in onnx.load(path).graph.node if node.domain)
        narrow = grid == "int4" and rows
        assert [use.form for use in report.weights[0].served] == ["int4" if narrow else "int8"]
        how = {each.name: each.i for each in product.attribute}
        assert (how["K"], how["N"], how["bits"], how["block_size"]) == (K, N, 4 if narrow else 8, 32)
        weight = decode_file(path)["w"]
        exact = x @ (weight.T if rows else weight)
        if bias:
            exact += numpy_helper.to_array(onnx.load(tmp_path / "float.onnx").graph.initializer[1])
        exact = np.maximum(exact, 0)
        assert np.abs(answer(path, x) - exact).max() < 0.03 * exact.max()  # activations are rounded, too
        for policy in ("auto", "int4"):
            found = load_session(path, "accuracy-1", policy=policy).run(None, {"x": x})[0]
            np.testing.assert_allclose(found, exact, rtol=0, atol=1e-5 * exact.max())
            np.testing.assert_array_equal(
                load_session(path, policy=policy).run(None, {"x": x})[0], answer(path, x)
            )


def test_inputs_that_no_block_divides_are_served_by_what_every_runtime_knows(tmp_path: Path) -> None:
    write(tmp_path / "float.onnx", rows=False, bias=True, inputs=30)
    path = tmp_path / "kernels.onnx"
    compress_onnx(
        tmp_path / "float.onnx", path, flat=True, policy="int8", target="onnxruntime-kernels", check=False
    )
    assert not any(node.domain for node in onnx.load(path).graph.node)
