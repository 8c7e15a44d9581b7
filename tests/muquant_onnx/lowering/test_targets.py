"""What a file is for: the operators that its targets have, and the answers, which are the same."""

import itertools
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from muquant import MuLawSpec
from muquant.base.errors import InputError
from muquant_onnx import compress_onnx, decode_file
from muquant_onnx.lowering.decode import LARGE
from muquant_onnx.lowering.kernels import CONTRIB
from muquant_onnx.lowering.targets import TARGETS, choose_target

SIZE = 1024


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of one product with a large weight."""
    weight = np.random.default_rng(0).normal(size=(SIZE, SIZE)).astype(np.float32)
    assert weight.size == LARGE
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", SIZE]) for name in "xy"]
    nodes = [helper.make_node("MatMul", ["x", "w"], ["y"])]
    constants = [numpy_helper.from_array(weight, "w")]
    graph = helper.make_graph(nodes, "product", values[:1], values[1:], constants)
    path = tmp_path_factory.mktemp("product") / "float.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


@pytest.mark.parametrize("functions", [None, True])
@pytest.mark.parametrize("target", TARGETS)
def test_the_same_answers(target: str, functions: bool | None, product: Path, tmp_path: Path) -> None:
    path, x = tmp_path / "small.onnx", np.random.default_rng(1).normal(size=(4, SIZE)).astype(np.float32)
    compress_onnx(
        product,
        path,
        MuLawSpec(3, 20.0),
        flat=True,
        observer="absmax",
        target=target,
        functions=functions,
        check=False,
    )
    model = onnx.load(path)
    onnx.checker.check_model(model)
    kernels = target == "onnxruntime-kernels"
    domains = {node.domain for node in model.graph.node}
    assert (CONTRIB in domains) == kernels
    assert bool(model.functions) == ("muquant" in domains) == bool(functions)
    negative = [
        numpy_helper.to_array(attribute.t)
        for graph in (model.graph, *model.functions)
        for node in graph.node
        for attribute in node.attribute
        if node.op_type == "Constant" and attribute.t.data_type == TensorProto.INT32
    ]
    assert any((each < 0).any() for each in negative) == TARGETS[target].pairs
    wanted = x @ decode_file(path)["w"]
    found = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, {"x": x})[0]
    rounded = TARGETS[target].policy != "float"
    np.testing.assert_allclose(found, wanted, rtol=0, atol=(0.02 if rounded else 1e-5) * np.abs(wanted).max())


def test_what_is_said_counts_more_than_the_target() -> None:
    assert choose_target("portable").policy == "float"
    assert choose_target("portable", "int8").policy == "int8"
    assert not choose_target("web").functions
    assert choose_target("web", functions=True).functions
    with pytest.raises(InputError, match="target 'tpu' is unknown; expected one of onnxruntime, "):
        choose_target("tpu")
    with pytest.raises(InputError, match="policy 'int3' is unknown"):
        choose_target("web", "int3")


def test_names_in_a_branch_are_not_taken(tmp_path: Path) -> None:
    """Values that decode get names of their own, whatever a graph calls its own, in branches too."""
    names = ("zero", "one", "u", "words", "tables", "rows", "joined", "digits", "level")
    nodes = [helper.make_node("Relu", ["h"], [names[0]])]
    nodes += [helper.make_node("Neg", [one], [other]) for one, other in itertools.pairwise(names)]
    branches = [
        helper.make_graph(
            [helper.make_node(node.op_type, node.input, node.output) for node in nodes],
            branch,
            [],
            [helper.make_tensor_value_info(names[-1], TensorProto.FLOAT, None)],
        )
        for branch in ("then", "else")
    ]
    weight = np.random.default_rng(0).normal(size=(32, 32)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("If", ["c"], ["y"], then_branch=branches[0], else_branch=branches[1]),
        ],
        "branches",
        [
            helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 32]),
            helper.make_tensor_value_info("c", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 32])],
        [numpy_helper.from_array(weight, "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "float.onnx")
    compress_onnx(tmp_path / "float.onnx", tmp_path / "small.onnx", flat=True, check=False)
    onnx.checker.check_model(onnx.load(tmp_path / "small.onnx"), full_check=True)
    x = np.random.default_rng(1).normal(size=(2, 32)).astype(np.float32)
    session = ort.InferenceSession(str(tmp_path / "small.onnx"), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": x, "c": np.array(True)})
    wanted = np.maximum(x @ decode_file(tmp_path / "small.onnx")["w"], 0)
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)
