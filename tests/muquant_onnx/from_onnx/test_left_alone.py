"""No floating-point constant of a graph is passed over in silence: each is a weight or left alone, once."""

import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings, strategies as st
from onnx import AttributeProto, TensorProto, helper, numpy_helper

from muquant_onnx import compress_onnx
from muquant_onnx.from_onnx import find_weights, read_graph

from .test_find import LEFT_ALONE, matmul, save, weight
from .test_graphs import CASES

WIDTHS: dict[int, int] = {
    TensorProto.FLOAT: 4,
    TensorProto.FLOAT16: 2,
    TensorProto.BFLOAT16: 2,
    TensorProto.DOUBLE: 8,
    TensorProto.FLOAT8E4M3FN: 1,
}
"""Floating-point type -> bytes of a number."""
KINDS = st.sampled_from([*WIDTHS, TensorProto.INT32])
SHAPES = st.sampled_from([(), (1,), (6,), (6, 6), (0, 6), (2, 6, 6)])
USERS = st.lists(
    st.sampled_from(["MatMul", "Gather", "Einsum", "Foreign", "LSTM", "FusedMatMul", "Scaled", "Sliced"]),
    max_size=2,
)
"""What uses a constant: a layer where it fits, operators before one, one of another domain."""
DOMAINS = [helper.make_opsetid(domain, 1) for domain in ("com.example", "com.microsoft")]
HOMES = st.sampled_from(["initializer", "Constant", "input", "branch", "function", "branch of a function"])


def constants(holder: Any) -> Iterator[int]:
    """The bytes of each floating-point constant of a GraphProto or FunctionProto, as the standard has it."""
    for tensor in getattr(holder, "initializer", ()):
        yield from tensor_bytes(tensor)
    for node in holder.node:
        for attribute in node.attribute:
            if attribute.type == AttributeProto.GRAPH:
                yield from constants(attribute.g)
            elif node.op_type == "Constant" and attribute.name == "value":
                yield from tensor_bytes(attribute.t)
            elif attribute.name in ("value_float", "value_floats"):
                yield 4 * max(len(attribute.floats), attribute.name == "value_float")


def tensor_bytes(tensor: onnx.TensorProto) -> Iterator[int]:
    if tensor.data_type in WIDTHS:
        yield math.prod(tensor.dims) * WIDTHS[tensor.data_type]


def expect_all(path: Path) -> None:
    """Expect that what is found in the file and what is left alone are its constants, each once."""
    proto = onnx.load(path)
    wanted = Counter(nbytes for holder in (proto.graph, *proto.functions) for nbytes in constants(holder))
    found, left = find_weights(read_graph(path).model)
    seen = Counter([*(each.tensor.nbytes for each in found), *(each.nbytes for each in left)])
    wanted.pop(0, None), seen.pop(0, None)  # what is computed or of integers has none
    assert seen == wanted


@pytest.mark.parametrize("name", [*CASES, *LEFT_ALONE])
def test_every_constant_of_the_awkward_graphs_is_a_weight_or_left_alone(name: str, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    if name in CASES:
        onnx.save(CASES[name].model(), path)
    else:
        nodes, tensors, _ = LEFT_ALONE[name]
        inputs = (helper.make_tensor_value_info("x2", TensorProto.FLOAT, (8, 8)),)
        opsets = [helper.make_opsetid("com.example", 1)]
        nodes = [matmul("x w", "h"), *nodes]
        if not any("y" in node.output for node in nodes):
            nodes.append(helper.make_node("Identity", ["h"], ["y"]))
        save(path, nodes, [weight("w", 8, 8), *tensors], inputs=inputs, opsets=opsets)
    expect_all(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(drawn=st.lists(st.tuples(KINDS, SHAPES, HOMES, USERS), max_size=6), numbers=st.integers(1, 3))
def test_every_constant_is_a_weight_or_left_alone(
    drawn: list[tuple[int, tuple[int, ...], str, list[str]]], numbers: int, tmp_path: Path
) -> None:
    nodes = [
        helper.make_node("Constant", [], ["n0"], value_float=1.0),
        helper.make_node("Constant", [], ["n1"], value_floats=[1.0] * numbers),
    ]
    tensors: list[onnx.TensorProto] = []
    inputs: list[onnx.ValueInfoProto] = []
    functions: list[onnx.FunctionProto] = []
    for number, (kind, shape, home, users) in enumerate(drawn):
        name = f"c{number}"
        tensor = helper.make_tensor(
            name, kind, shape, bytes(math.prod(shape) * WIDTHS.get(kind, 4)), raw=True
        )
        if "function" in home:  # which do not see the numbers that these take
            users = [user for user in users if user not in ("Scaled", "Sliced")]
        own = [node for place, user in enumerate(users) for node in use(user, name, f"{name}_{place}")]
        if home in ("Constant", "function"):
            own.insert(0, helper.make_node("Constant", [], [name], value=tensor))
        if "branch" in home:
            result = [helper.make_tensor_value_info("r", TensorProto.FLOAT, None)]
            last = helper.make_node("Identity", ["x"], ["r"])
            inside = helper.make_graph([*own, last], "inside", [], result, [tensor])
            other = helper.make_graph([last], "other", [], result)
            own = [helper.make_node("If", ["yes"], [f"if{number}"], then_branch=inside, else_branch=other)]
        if "function" in home:
            opsets = [helper.make_opsetid("", 17), *DOMAINS]
            functions.append(helper.make_function("local", f"F{number}", ["x", "yes"], ["x"], own, opsets))
            own = []
        elif home in ("initializer", "input"):
            tensors.append(tensor)
            if home == "input":
                inputs.append(helper.make_tensor_value_info(name, kind, shape))
        nodes += own
    tensors.append(numpy_helper.from_array(np.array(True), "yes"))
    tensors += [numpy_helper.from_array(np.array([n]), name) for name, n in (("zero", 0), ("two", 2))]
    nodes.append(helper.make_node("Identity", ["x"], ["y"]))
    path = save(
        tmp_path / "model.onnx",
        nodes,
        tensors,
        inputs=tuple(inputs),
        opsets=[*DOMAINS, helper.make_opsetid("local", 1)],
        functions=functions,
    )
    expect_all(path)


def use(user: str, name: str, output: str) -> list[onnx.NodeProto]:
    """Nodes that use the constant."""
    if user == "Einsum":
        return [helper.make_node(user, [name], [output], equation="...->...")]
    if user == "LSTM":
        return [helper.make_node(user, ["x", name, name], [output], hidden_size=1)]
    if user in ("Foreign", "FusedMatMul"):
        domain = "com.example" if user == "Foreign" else "com.microsoft"
        return [helper.make_node(user, ["x", name], [output], domain=domain)]
    if user in ("Scaled", "Sliced"):
        before = {"Scaled": ("Mul", [name, "n0"]), "Sliced": ("Slice", [name, "zero", "two"])}[user]
        return [
            helper.make_node(*before, [f"{output}_before"]),
            helper.make_node("MatMul", ["x", f"{output}_before"], [output]),
        ]
    return [helper.make_node(user, ["x", name] if user == "MatMul" else [name, "x"], [output])]


def test_the_largest_is_the_first(tmp_path: Path) -> None:
    """Doubles too: an embedding of them, which is most of this file, was passed over without a word."""
    nodes = [
        helper.make_node("Cast", ["x"], ["i"], to=TensorProto.INT64),
        helper.make_node("Gather", ["e", "i"], ["d"]),
        helper.make_node("Mul", ["d", "s"], ["m"]),
        helper.make_node("Cast", ["m"], ["f"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["f", "b"], ["g"]),
        matmul("g v", "h"),
        matmul("h w", "y"),
    ]
    half = numpy_helper.from_array(np.array(0.5), "s")
    tensors = [
        weight("b", 8),
        half,
        weight("v", 8, 8),
        weight("w", 8, 8),
        weight("e", 90, 8, dtype=np.float64),
    ]
    path = save(tmp_path / "model.onnx", nodes, [*tensors, weight("z", 2, 2)], x=(5,))
    report = compress_onnx(path, tmp_path / "small.onnx", layers="^w$")
    assert [(left.name, left.consumer, left.nbytes, left.reason) for left in report.left_alone] == [
        ("e", "Gather", 5760, "it was not picked"),
        ("v", "MatMul", 256, "it was not picked"),
        ("b", "Add", 32, "it has one axis; a weight has channels and inputs"),
        ("z", "", 16, "nothing uses it"),
        ("s", "Mul", 8, "it is a scalar"),
    ]


def test_doubles_beyond_float32_and_masks_of_infinity_stay(tmp_path: Path) -> None:
    """Both were errors once the file was read: "holds infinity"."""
    nodes = [
        helper.make_node("Cast", ["x"], ["d"], to=TensorProto.DOUBLE),
        matmul("d e", "f"),
        helper.make_node("Cast", ["f"], ["g"], to=TensorProto.FLOAT),
        matmul("g m", "h"),
        matmul("x w", "i"),
        helper.make_node("Add", ["h", "i"], ["y"]),
    ]
    large = weight("e", 8, 8, dtype=np.float64)
    large.raw_data = (numpy_helper.to_array(large) * 1e39).tobytes()
    mask = numpy_helper.from_array(np.triu(np.full((8, 8), -np.inf, np.float32), 1), "m")
    path = save(tmp_path / "model.onnx", nodes, [large, mask, weight("w", 8, 8)])
    report = compress_onnx(path, tmp_path / "small.onnx")
    assert [(left.name, left.reason) for left in report.left_alone] == [
        ("e", "it holds numbers beyond those of float32"),
        ("m", "a mask: zeros and one very low number"),
    ]


@pytest.mark.parametrize("op", ["Identity", "Mul", "Add", "Neg"])
def test_long_chains_of_constants_end(op: str, tmp_path: Path) -> None:
    """Each step doubles the ways to the weight; a chain that is too long is not followed, and said so."""
    places = {"Identity": 1, "Neg": 1}.get(op, 2)
    nodes = [helper.make_node(op, [f"c{i}"] * places, [f"c{i + 1}"]) for i in range(1500)]
    path = save(
        tmp_path / "model.onnx",
        [*nodes, matmul("x c1500", "h"), matmul("h c60", "i"), matmul("i w", "y")],
        [weight("c0", 8, 8), weight("w", 8, 8)],
    )
    found, left = find_weights(read_graph(path).model)
    assert sorted(each.name for each in found) == ["c0", "w"]
    assert not [each for each in left if each.nbytes]
