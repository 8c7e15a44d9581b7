"""Weights inside functions of a model, and behind them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import FunctionProto, NodeProto, TensorProto, helper, numpy_helper

from muquant_onnx import compress_onnx, decode_file

FLOAT = TensorProto.FLOAT
X = np.random.default_rng(1).standard_normal((5, 8)).astype(np.float32)


def weight(name: str = "", seed: int = 0) -> TensorProto:
    values = np.random.default_rng(seed).standard_normal((8, 8)).astype(np.float32)
    return numpy_helper.from_array(values, name)


def function(name: str, inputs: str, nodes: list[NodeProto], opset: int = 17, **more: Any) -> FunctionProto:
    opsets = [helper.make_opsetid("", opset), helper.make_opsetid("local", 1)]
    return helper.make_function("local", name, inputs.split(), ["b"], nodes, opsets, **more)


def call(name: str, inputs: str, output: str = "y", **attributes: Any) -> NodeProto:
    return helper.make_node(name, inputs.split(), [output], domain="local", **attributes)


def product(inputs: str, output: str = "b") -> NodeProto:
    return helper.make_node("MatMul", inputs.split(), [output])


def held(output: str = "k") -> NodeProto:
    return helper.make_node("Constant", [], [output], value=weight(seed=3))


def branch(name: str, nodes: list[NodeProto]) -> onnx.GraphProto:
    return helper.make_graph(nodes, name, [], [helper.make_tensor_value_info("r", FLOAT, None)])


DENSE = function("Dense", "a", [held(), product("a k")])
GIVEN = function("Given", "a k", [product("a k")])
NESTED = function("Nested", "a", [call("Dense", "a", "c"), call("Dense", "c", "b")])
SCALED = function(
    "Scaled",
    "a k",
    [
        helper.make_node("Constant", [], ["s"], value_float=1.0),
        helper.make_node("Gemm", ["a", "k"], ["b"]),
    ],
    attributes=["alpha"],
)
SCALED.node[1].attribute.append(
    onnx.AttributeProto(name="alpha", ref_attr_name="alpha", type=onnx.AttributeProto.FLOAT)
)
BRANCHED = function(
    "Branched",
    "a",
    [
        held(),
        helper.make_node("Constant", [], ["yes"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node(
            "If",
            ["yes"],
            ["b"],
            then_branch=branch("yes", [product("a k", "r")]),
            else_branch=branch("no", [helper.make_node("Identity", ["a"], ["r"])]),
        ),
    ],
)
CASES: dict[str, tuple[list[FunctionProto], list[NodeProto], int]] = {
    "passed to it": ([GIVEN], [call("Given", "x w")], 1),
    "inside": ([DENSE], [call("Dense", "x")], 1),
    "inside, called twice": ([DENSE], [call("Dense", "x", "h"), call("Dense", "h")], 1),
    "inside one inside another": ([DENSE, NESTED], [call("Nested", "x")], 1),
    "with an attribute": ([SCALED], [call("Scaled", "x w", alpha=0.5)], 1),
    "in a branch": ([BRANCHED], [call("Branched", "x")], 1),
    "another opset": ([function("Old", "a", [held(), product("a k")], opset=15)], [call("Old", "x")], 1),
    "shared with the graph": ([GIVEN], [product("x w", "h"), call("Given", "h w")], 1),
}


def save(path: Path, functions: list[FunctionProto], nodes: list[NodeProto]) -> Path:
    tensors = [weight("w")] if any("w" in node.input for node in nodes) else []
    info = [helper.make_tensor_value_info(name, FLOAT, (5, 8)) for name in "xy"]
    graph = helper.make_graph(nodes, "g", info[:1], info[1:], tensors)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("local", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8, functions=functions), path)
    return path


def run(path: Path, *, optimize: bool = True) -> NDArray[np.float32]:
    options = ort.SessionOptions()
    if not optimize:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    result: NDArray[np.float32] = session.run(None, {"x": X})[0]
    return result


@pytest.mark.parametrize("name", CASES)
def test_weights_are_found_once_and_outputs_are_those_of_the_decoded_weights(
    name: str, tmp_path: Path
) -> None:
    functions, nodes, count = CASES[name]
    path, small = save(tmp_path / "model.onnx", functions, nodes), tmp_path / "small.onnx"
    report = compress_onnx(path, small, policy="float")
    assert (len(report.weights), sum(left.nbytes >= 256 for left in report.left_alone)) == (count, 0)
    (decoded,) = decode_file(small).values()

    patched = onnx.load(path)
    for tensor in (
        *patched.graph.initializer,
        *(
            node.attribute[0].t
            for each in patched.functions
            for node in each.node
            if node.op_type == "Constant"
        ),
    ):
        if list(tensor.dims) == [8, 8]:
            tensor.CopyFrom(numpy_helper.from_array(decoded, tensor.name))
    onnx.save(patched, tmp_path / "patched.onnx")
    expected = run(tmp_path / "patched.onnx")
    for optimize in (True, False):
        np.testing.assert_allclose(run(small, optimize=optimize), expected, rtol=1e-5, atol=1e-5)


def test_a_function_that_nothing_calls_is_named_with_its_bytes(tmp_path: Path) -> None:
    path = save(tmp_path / "model.onnx", [DENSE], [product("x w", "y")])
    report = compress_onnx(path, tmp_path / "small.onnx")
    left = [(each.name, each.nbytes, each.reason) for each in report.left_alone]
    assert left == [("Dense.k", 256, "it belongs to a function that nothing calls")]
    run(tmp_path / "small.onnx")
