"""What is found in a graph, under which name, and why the rest is left alone."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import muquant as mq
from muquant.format.channels import ROWS
from muquant_onnx import CompressReport, compress_onnx, decode_file, load_session
from muquant_onnx.from_onnx import find_weights, read_graph

FLOAT = TensorProto.FLOAT


def weight(name: str, *shape: int, dtype: Any = np.float32) -> onnx.TensorProto:
    values = np.random.default_rng(len(name)).standard_normal(shape) * 4
    return numpy_helper.from_array(values.astype(dtype), name)


def save(
    path: Path,
    nodes: list[onnx.NodeProto],
    tensors: list[onnx.TensorProto],
    x: tuple[int, ...] = (5, 8),
    y: tuple[int, ...] = (5, 8),
    ir_version: int = 8,
    inputs: tuple[onnx.ValueInfoProto, ...] = (),
    **model: Any,
) -> Path:
    """Write a graph from x to y."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, x), *inputs],
        [helper.make_tensor_value_info("y", FLOAT, y)],
        tensors,
    )
    opsets = [helper.make_opsetid("", 17), *model.pop("opsets", [])]
    made = helper.make_model(graph, opset_imports=opsets, ir_version=ir_version, **model)
    onnx.save(made, path)
    return path


def matmul(inputs: str = "x w", output: str = "y", name: str = "") -> onnx.NodeProto:
    return helper.make_node("MatMul", inputs.split(), [output], name=name)


def left(report: CompressReport) -> dict[str, tuple[str, str]]:
    return {entry.name: (entry.consumer, entry.reason) for entry in report.left_alone}


LEFT_ALONE: dict[str, tuple[list[onnx.NodeProto], list[onnx.TensorProto], dict[str, tuple[str, str]]]] = {
    "a 1-d tensor": (
        [helper.make_node("Add", ["h", "b"], ["y"])],
        [weight("b", 8)],
        {"b": ("Add", "it has one axis; a weight has channels and inputs")},
    ),
    "no layer": (
        [helper.make_node("Mul", ["h", "m"], ["y"])],
        [weight("m", 5, 8)],
        {"m": ("Mul", "no layer computes with it; Mul does")},
    ),
    "computed": (
        [
            helper.make_node("Sigmoid", ["x"], ["s"]),
            helper.make_node("Transpose", ["s"], ["t"]),
            matmul("h t", "z"),
        ],
        [],
        {"s": ("MatMul", "it is not a constant: Sigmoid computes it")},
    ),
    "an input": ([matmul("h x2", "y")], [], {"x2": ("MatMul", "it is not a constant: it is an input")}),
    "integers": (
        [
            helper.make_node("Cast", ["h"], ["d"], to=TensorProto.INT32),
            matmul("d w2", "e"),
            helper.make_node("Cast", ["e"], ["y"], to=FLOAT),
        ],
        [weight("w2", 8, 8, dtype=np.int32)],
        {"w2": ("MatMul", "its type is int32, not float, double, float16 or bfloat16")},
    ),
    "empty": (
        [matmul("h w2", "z"), helper.make_node("Identity", ["h"], ["y"])],
        [weight("w2", 8, 0)],
        {"w2": ("MatMul", "it is empty: its shape is (8, 0)")},
    ),
    "a vector": (
        [matmul("h w2", "z"), helper.make_node("Identity", ["h"], ["y"])],
        [weight("w2", 8)],
        {"w2": ("MatMul", "it has one axis; a weight has channels and inputs")},
    ),
    "torn channels": (
        [helper.make_node("Reshape", ["w2", "shape"], ["r"]), matmul("h r", "z")],
        [weight("w2", 6, 4), numpy_helper.from_array(np.array([8, 3]), "shape")],
        {"w2": ("MatMul", "Reshape makes its channels of parts of its axes")},
    ),
    "a shape that is computed": (
        [
            helper.make_node("Shape", ["x"], ["s0"]),
            helper.make_node("Gather", ["s0", "one"], ["s1"], axis=0),
            helper.make_node("Concat", ["s1", "s1"], ["s"], axis=0),
            helper.make_node("Reshape", ["w2", "s"], ["r"]),
            matmul("h r", "y"),
        ],
        [weight("w2", 8, 2, 4), numpy_helper.from_array(np.array([1]), "one")],
        {"w2": ("MatMul", "Reshape gives it a shape that is computed from inputs")},
    ),
    "a product that is broadcast": (
        [helper.make_node("Mul", ["w2", "x"], ["m"]), matmul("h m", "z")],
        [weight("w2", 8, 1)],
        {
            "m": ("MatMul", "it is not a constant: Mul computes it"),
            "w2": ("Mul", "no layer computes with it; Mul does"),
        },
    ),
    "a bias of gates": (
        [
            helper.make_node("Unsqueeze", ["h", "zero"], ["u"]),
            helper.make_node("LSTM", ["u", "lw", "lr", "lb"], ["l", "", ""], hidden_size=8),
            helper.make_node("Squeeze", ["l"], ["y"]),
        ],
        [
            *(numpy_helper.from_array(np.full((1, 32, 8), 0.1, np.float32), name) for name in ("lw", "lr")),
            weight("lb", 1, 64),
            numpy_helper.from_array(np.array([0]), "zero"),
        ],
        {
            **dict.fromkeys(("lw", "lr"), ("LSTM", "all its numbers are equal")),
            "lb": ("LSTM", "LSTM computes with it, but not as its weight"),
        },
    ),
    "a decoder of boxes": (
        [
            helper.make_node("Reshape", ["h", "maps"], ["m"]),
            helper.make_node("Conv", ["m", "ramp"], ["d"]),
        ],
        [
            numpy_helper.from_array(np.arange(8, dtype=np.float32).reshape(1, 8, 1, 1), "ramp"),
            numpy_helper.from_array(np.array([5, 8, 1, 1]), "maps"),
        ],
        {"ramp": ("Conv", "a ramp: each number is as far from the next")},
    ),
    "a scale of a weight": (
        [helper.make_node("Mul", ["w", "s"], ["ws"]), matmul("h ws", "z")],
        [weight("s", 8, 1)],
        {"s": ("Mul", "no layer computes with it; Mul does")},
    ),
    "a sum over nothing": (
        [helper.make_node("Einsum", ["h", "w2"], ["e"], equation="ij,ij->ij")],
        [weight("w2", 5, 8)],
        {"w2": ("Einsum", "Einsum does not take it by its rows")},
    ),
    "an unknown operator of another domain": (
        [helper.make_node("Dense", ["h", "w2"], ["y"], domain="com.example")],
        [weight("w2", 8, 8)],
        {"w2": ("Dense", "no layer computes with it; Dense does")},
    ),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
def test_what_is_left_alone_is_said(name: str, tmp_path: Path) -> None:
    nodes, tensors, expected = LEFT_ALONE[name]
    if not any("y" in node.output for node in nodes):
        nodes = [*nodes, helper.make_node("Identity", ["h"], ["y"])]
    path = save(
        tmp_path / "model.onnx",
        [matmul("x w", "h"), *nodes],
        [weight("w", 8, 8), *tensors],
        inputs=(helper.make_tensor_value_info("x2", FLOAT, (8, 8)),),
        opsets=[helper.make_opsetid("com.example", 1)],
    )
    report = compress_onnx(path, tmp_path / "small.onnx", policy="float")
    assert [found.name for found in report.weights] == ["w"]
    assert left(report) == expected
    stored = {tensor.name: tensor for tensor in onnx.load(tmp_path / "small.onnx").graph.initializer}
    for tensor in tensors:
        np.testing.assert_array_equal(
            numpy_helper.to_array(stored[tensor.name]), numpy_helper.to_array(tensor)
        )


def test_an_initializer_that_callers_may_set_is_left_alone(tmp_path: Path) -> None:
    value = helper.make_tensor_value_info("w2", FLOAT, (8, 8))
    nodes, tensors = [matmul("x w", "h"), matmul("h w2")], [weight("w", 8, 8), weight("w2", 8, 8)]
    path = save(tmp_path / "model.onnx", nodes, tensors, inputs=(value,))
    report = compress_onnx(path, tmp_path / "small.onnx")
    assert left(report)["w2"][1].startswith("it is an input of the graph too, which callers may set")
    names = [entry.name for entry in load_session(tmp_path / "small.onnx").get_overridable_initializers()]
    assert names == ["w2"]


def test_in_old_files_every_initializer_had_to_be_an_input(tmp_path: Path) -> None:
    values = tuple(helper.make_tensor_value_info(name, FLOAT, (8, 8)) for name in ("w", "w2"))
    nodes, tensors = [matmul("x w", "h"), matmul("h w2")], [weight("w", 8, 8), weight("w2", 8, 8)]
    path = save(tmp_path / "model.onnx", nodes, tensors, inputs=values, ir_version=3)
    report = compress_onnx(path, tmp_path / "small.onnx", layers="^w$")
    assert left(report) == {"w2": ("MatMul", "it was not picked")}
    session = load_session(tmp_path / "small.onnx")
    assert [entry.name for entry in session.get_inputs()] == ["x"]
    assert session.get_overridable_initializers() == []


def test_an_output_of_the_graph_is_left_alone(tmp_path: Path) -> None:
    path = save(
        tmp_path / "model.onnx", [matmul("x w", "h"), matmul("h w2")], [weight("w", 8, 8), weight("w2", 8, 8)]
    )
    model = onnx.load(path)
    model.graph.output.append(helper.make_tensor_value_info("w2", FLOAT, (8, 8)))
    onnx.save(model, path)
    report = compress_onnx(path, tmp_path / "small.onnx")
    assert left(report) == {"w2": ("MatMul", "it is an output of its graph too")}


def test_every_use_is_named_with_its_geometry_and_activation(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["h"], name="stem", strides=[2, 2]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Transpose", ["w2"], ["t"]),
        matmul("r t", "y"),
        matmul("w2 r2", "z", name="left"),
    ]
    path = save(
        tmp_path / "model.onnx",
        nodes,
        [weight("w", 4, 3, 3, 3), weight("w2", 6, 3)],
        x=(1, 3, 7, 7),
        y=(1, 4, 3, 6),
        inputs=(helper.make_tensor_value_info("r2", FLOAT, (3, 2)),),
    )
    conv, matrix = find_weights(read_graph(path).model)[0]
    (use,) = conv.uses
    assert (conv.name, use.kind, use.index, use.path, conv.channels) == ("w", "Conv", 1, (), ROWS)
    assert use.activation is not None
    assert (use.activation.name, list(use.node.attributes.get_ints("strides"))) == ("x", [2, 2])
    found = [
        (use.kind, use.index, use.activation and use.activation.name, [step.op_type for step in use.path])
        for use in matrix.uses
    ]
    assert found == [("MatMul", 1, "r", ["Transpose"]), ("MatMul", 0, "r2", [])]
    assert [use.channels for use in matrix.uses] == [ROWS, ROWS]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("fc1.weight", "fc1.weight"),
        ("onnx::MatMul_12", "onnx::MatMul_12"),
        ("/model/fc 1/weight\n", "/model/fc_1/weight_"),
        ("h", "h_1"),  # h.packed, a value of the graph, would be a part of it
    ],
)
def test_names_are_clean_and_their_parts_free(source: str, name: str, tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", source], ["h.packed"]),
        helper.make_node("Relu", ["h.packed"], ["y"]),
    ]
    path = save(tmp_path / "model.onnx", nodes, [weight(source, 8, 8)])
    report = compress_onnx(path, tmp_path / "small.onnx")
    assert [(found.name, found.source) for found in report.weights] == [(name, source)]
    assert set(decode_file(tmp_path / "small.onnx")) == {name}
    load_session(tmp_path / "small.onnx")


def chain(path: Path) -> Path:
    names = ["a", "b", "c", "d"]
    nodes = [
        matmul(
            f"{'x' if index == 0 else f'h{index}'} {name}",
            "y" if index == 3 else f"h{index + 1}",
            f"layer{index}",
        )
        for index, name in enumerate(names)
    ]
    return save(path, nodes, [weight(name, 8, 8) for name in names])


@pytest.mark.parametrize(
    ("layers", "picked"),
    [
        ("all", "abcd"),
        ("last:2", "cd"),
        ("last:9", "abcd"),
        ("^[ac]$", "ac"),
        ("layer[13]", "bd"),
        ("d|layer0", "ad"),
    ],
)
def test_layers_are_picked_by_the_names_of_weights_and_nodes(
    layers: str, picked: str, tmp_path: Path
) -> None:
    report = compress_onnx(chain(tmp_path / "model.onnx"), tmp_path / "small.onnx", layers=layers)
    assert "".join(found.name for found in report.weights) == picked
    assert {entry.name for entry in report.left_alone} == set("abcd") - set(picked)


def test_overrides_and_progress(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    report = compress_onnx(
        chain(tmp_path / "model.onnx"),
        tmp_path / "small.onnx",
        layers="last:3",
        overrides={"layer[12]": 5, "c": mq.MuLawSpec(8, 255.0, domain="mapped")},
        on_layer=lambda *step: seen.append(step),
    )
    formats = [(found.name, found.bits, found.domain) for found in report.weights]
    assert formats == [("b", 5, "decoded"), ("c", 8, "mapped"), ("d", 3, "decoded")]
    assert seen == [("b", 0, 3), ("c", 1, 3), ("d", 2, 3)]


def test_the_reports_figures(tmp_path: Path) -> None:
    path = chain(tmp_path / "model.onnx")
    report = compress_onnx(path, tmp_path / "small.onnx", policy="float")
    decoded = decode_file(tmp_path / "small.onnx")
    source = {tensor.name: numpy_helper.to_array(tensor) for tensor in onnx.load(path).graph.initializer}
    for found in report.weights:
        before = source[found.name].astype(np.float64)
        noise = ((before - decoded[found.name]) ** 2).sum()
        assert found.sqnr == pytest.approx(10 * np.log10((before**2).sum() / noise), abs=1e-4)
        assert (found.nbytes, found.source_nbytes, found.shape) == (24 + 4 * 8, 4 * 64, (8, 8))
        assert [(use.consumer, use.form) for use in found.served] == [("MatMul", "float")]
    assert report.nbytes == (tmp_path / "small.onnx").stat().st_size
    assert report.source_nbytes == path.stat().st_size
