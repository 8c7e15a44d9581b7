"""Nodes in an order in which they can run; graphs are as deep as they like."""

import random
from itertools import pairwise
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import muquant as mq
from muquant import InputError
from muquant_onnx import compress_onnx, decode_file, load_session
from muquant_onnx.serving.order import put_in_order, used_by
from muquant_onnx.serving.sessions import POLICIES

WEIGHT = np.random.default_rng(0).standard_normal((32, 32)).astype(np.float32)
X = np.random.default_rng(1).standard_normal((2, 32)).astype(np.float32)


def graph(nodes: list[onnx.NodeProto]) -> onnx.GraphProto:
    info = helper.make_tensor_value_info
    x, y = (info(name, TensorProto.FLOAT, ["n", 32]) for name in ("x", "y"))
    stored = {"w": WEIGHT, "c": np.full(32, 1e-3, np.float32)}
    return helper.make_graph(
        nodes, "g", [x], [y], [numpy_helper.from_array(value, name) for name, value in stored.items()]
    )


@pytest.mark.parametrize("seed", range(5))
def test_nodes_follow_what_they_use(seed: int) -> None:
    nodes = [helper.make_node("Add", [f"v{i // 2}", f"v{i}"], [f"v{i + 1}"]) for i in range(30)]
    branch = helper.make_graph([helper.make_node("Neg", ["v17"], ["inner"])], "b", [], [])
    nodes.append(helper.make_node("If", ["v0"], ["late"], then_branch=branch, else_branch=branch))
    random.Random(seed).shuffle(nodes)
    made = graph(nodes)
    put_in_order(made)
    assert sorted(map(str, made.node)) == sorted(map(str, nodes))
    known, everything = set[str](), {name for node in nodes for name in node.output}
    for node in made.node:
        assert not (set(used_by(node)) & everything) - known
        known.update(node.output)


def test_a_branch_may_call_its_own_value_like_what_the_node_makes() -> None:
    branch = helper.make_graph(
        [helper.make_node("Neg", ["late"], ["y"])],
        "b",
        [],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    chosen = helper.make_node("If", ["x"], ["y"], then_branch=branch, else_branch=branch)
    made = graph([chosen, helper.make_node("Neg", ["x"], ["late"])])
    put_in_order(made)
    assert [node.op_type for node in made.node] == ["Neg", "If"]
    assert set(used_by(chosen)) == {"x", "late"}


def test_nodes_in_order_stay_where_they_are() -> None:
    nodes = [helper.make_node("Neg", ["x"], [f"v{i}"]) for i in range(9)]
    made = graph(nodes)
    put_in_order(made)
    assert list(made.node) == nodes


@pytest.mark.parametrize("length", [1, 2, 3000])
def test_a_circle_is_refused(length: int) -> None:
    nodes = [helper.make_node("Neg", [f"v{i}"], [f"v{(i + 1) % length}"]) for i in range(length)]
    with pytest.raises(InputError, match=r"v\d+ is computed from itself"):
        put_in_order(graph(nodes))


@pytest.mark.slow
@pytest.mark.parametrize("place", ["in front", "behind"])
@pytest.mark.parametrize(("op_type", "others"), [("Identity", []), ("Add", ["c"])])
def test_no_depth_is_too_deep(op_type: str, others: list[str], place: str, tmp_path: Path) -> None:
    """Deeper than Python calls functions."""

    def chain(first: str, last: str) -> list[onnx.NodeProto]:
        names = [first, *(f"v{i}" for i in range(1500)), last]
        return [helper.make_node(op_type, [one, *others], [other]) for one, other in pairwise(names)]

    product = helper.make_node("MatMul", ["deep" if place == "in front" else "x", "w"], ["m"])
    nodes = [*chain("x", "deep"), product] if place == "in front" else [product, *chain("m", "y")]
    if place == "in front":
        nodes.append(helper.make_node("Identity", ["m"], ["y"]))
    model = helper.make_model(graph(nodes), opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, tmp_path / "float.onnx")
    compress_onnx(tmp_path / "float.onnx", tmp_path / "small.onnx", mq.MuLawSpec(8), check=False, flat=True)
    wanted = (X + len(others) * 1.501) @ WEIGHT if place == "in front" else X @ WEIGHT + len(others) * 1.501
    for policy in (None, *POLICIES):
        session = load_session(tmp_path / "small.onnx", "accuracy-1", policy=policy, threads=1)
        (found,) = session.run(None, {"x": X})
        np.testing.assert_allclose(found, wanted, rtol=0, atol=0.02 * np.abs(wanted).max())
    assert set(decode_file(tmp_path / "small.onnx")) == {"w"}
