"""Whatever cannot be used is refused in one line, and nothing is written."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from muquant import InputError
from muquant_onnx import compress_onnx, load_session

FLOAT = TensorProto.FLOAT
WEIGHT = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)


def model(
    nodes: list[onnx.NodeProto] | None = None, tensors: list[onnx.TensorProto] | None = None, opset: int = 17
) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes or [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", FLOAT, (5, 64))],
        [helper.make_tensor_value_info("y", FLOAT, (5, 64))],
        [numpy_helper.from_array(WEIGHT, "w")] if tensors is None else tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def external(location: str, offset: str = "0", length: str | None = "16384") -> onnx.ModelProto:
    tensor = onnx.TensorProto(name="w", data_type=FLOAT, dims=(64, 64), data_location=TensorProto.EXTERNAL)
    entries = {"location": location, "offset": offset, **({} if length is None else {"length": length})}
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=value)
    return model(tensors=[tensor])


def refused(folder: Path, destination: Path | None = None, **options: Any) -> str:
    """The message, after a look that the folder is as it was."""
    before = sorted(folder.iterdir())
    with pytest.raises(InputError) as caught:
        compress_onnx(folder / "model.onnx", destination or folder / "small.onnx", **options)
    assert sorted(folder.iterdir()) == before
    message = str(caught.value)
    assert "\n" not in message
    return message


def save(folder: Path, proto: onnx.ModelProto) -> None:
    (folder / "model.onnx").write_bytes(proto.SerializeToString())


NODES: dict[str, tuple[list[onnx.NodeProto], str]] = {
    "an undefined input": ([helper.make_node("MatMul", ["nothing", "w"], ["y"])], "nothing"),
    "a cycle": (
        [helper.make_node("Add", ["x", "y"], ["h"]), helper.make_node("MatMul", ["h", "w"], ["y"])],
        "topological",
    ),
    "an unknown operator": (
        [helper.make_node("MatMul", ["x", "w"], ["h"]), helper.make_node("MatMull", ["h"], ["y"])],
        "No Op registered for MatMull",
    ),
    "an unknown attribute": ([helper.make_node("MatMul", ["x", "w"], ["y"], colour=3)], "colour"),
    "an output nobody makes": ([helper.make_node("MatMul", ["x", "w"], ["z"])], "y"),
}


@pytest.mark.parametrize("name", NODES)
def test_graphs_that_are_not_valid(name: str, tmp_path: Path) -> None:
    nodes, message = NODES[name]
    save(tmp_path, model(nodes))
    found = refused(tmp_path)
    assert "is not a valid ONNX model" in found
    assert message in found


def test_files_that_are_not_onnx(tmp_path: Path) -> None:
    assert "No such file" in refused(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"")
    assert "is not a whole ONNX file" in refused(tmp_path)
    (tmp_path / "model.onnx").write_bytes(b"PK\x03\x04 a zip file, say" * 400)
    assert "is not a whole ONNX file" in refused(tmp_path)


def test_a_file_that_was_cut_at_any_byte(tmp_path: Path) -> None:
    whole = model().SerializeToString()
    for cut in [*range(1, 200), *range(200, len(whole), 997), len(whole) - 1]:
        (tmp_path / "model.onnx").write_bytes(whole[:cut])
        assert str(tmp_path / "model.onnx") in refused(tmp_path)


EXTERNAL: dict[str, tuple[onnx.ModelProto, str]] = {
    "missing": (external("nowhere.data"), "'nowhere.data': No such file"),
    "no location": (external(""), "outside the model's folder"),
    "absolute": (external("/etc/passwd"), "'/etc/passwd', outside the model's folder"),
    "above": (external("../outside.data"), "'../outside.data', outside the model's folder"),
    "above in the middle": (external("folder/../../outside.data"), "outside the model's folder"),
    "a link out": (external("link.data"), "'link.data', a link out of the model's folder"),
    "a link out through a folder": (external("out/outside.data"), "a link out of the model's folder"),
    "a folder": (external("folder"), "'folder', which is no file"),
    "a pipe": (external("pipe"), "'pipe', which is no file"),
    "too short": (external("short.data"), "should be 16384 bytes at 0"),
    "too short at its place": (external("whole.data", offset="4"), "should be 16384 bytes at 4"),
    "another length": (external("whole.data", length="16380"), "the model states 16380"),
    "too short without a length": (external("short.data", length=None), "states no length"),
    "a negative offset": (external("whole.data", offset="-4"), "no usable type, shape, offset or length"),
    "no number": (external("whole.data", offset="one"), "no usable type, shape, offset or length"),
}


@pytest.mark.parametrize("name", EXTERNAL)
def test_external_data_that_is_missing_or_elsewhere(name: str, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    (tmp_path / "outside.data").write_bytes(bytes(16384))
    (folder / "whole.data").write_bytes(bytes(16384))
    (folder / "short.data").write_bytes(bytes(16383))
    (folder / "link.data").symlink_to(tmp_path / "outside.data")
    (folder / "out").symlink_to(tmp_path)
    (folder / "folder").mkdir()
    os.mkfifo(folder / "pipe")
    proto, message = EXTERNAL[name]
    save(folder, proto)
    found = refused(folder)
    assert "the external data of w" in found
    assert message in found


def test_an_opset_that_is_too_old(tmp_path: Path) -> None:
    save(tmp_path, model(opset=6))
    assert "has opset 6, expected 7 or later; export it again" in refused(tmp_path)


def test_a_file_that_was_compressed_already(tmp_path: Path) -> None:
    save(tmp_path, model())
    compress_onnx(tmp_path / "model.onnx", tmp_path / "model.onnx")
    assert "was compressed by muquant already; name the float model" in refused(tmp_path)


def test_nothing_to_compress(tmp_path: Path) -> None:
    save(tmp_path, model([helper.make_node("Relu", ["x"], ["y"])], []))
    assert "holds no weight to compress; expected constants that MatMul" in refused(tmp_path)
    save(tmp_path, model([helper.make_node("Mul", ["x", "w"], ["y"])]))
    message = refused(tmp_path)
    assert "1 are left alone, such as w (Mul): no layer computes with it" in message


def _with(value: float) -> Callable[[onnx.ModelProto], None]:
    def change(proto: onnx.ModelProto) -> None:
        weight = WEIGHT.copy()
        weight[3, 4] = value
        proto.graph.initializer[0].CopyFrom(numpy_helper.from_array(weight, "w"))

    return change


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite(value: float, tmp_path: Path) -> None:
    proto = model()
    _with(value)(proto)
    save(tmp_path, proto)
    assert refused(tmp_path).startswith("w: weight of shape (64, 64) holds 1 values that are NaN or infinite")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"layers": "conv"}, "layers 'conv' matches no layer; the layers are w"),
        ({"layers": "last:0"}, 'expected a count from 1 behind "last:"'),
        ({"overrides": {"conv": 4}}, "override 'conv' matches no layer"),
        ({"rounding": "up"}, "rounding 'up' is unknown"),
        ({"observer": "eye"}, "observer 'eye' is unknown"),
        ({"policy": "fast"}, "policy 'fast' is unknown"),
    ],
)
def test_options(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    save(tmp_path, model())
    assert message in refused(tmp_path, **options)


def test_destinations(tmp_path: Path) -> None:
    save(tmp_path, model())
    assert "it is a folder" in refused(tmp_path, tmp_path)
    assert "No such file or directory" in refused(tmp_path, tmp_path / "nowhere" / "small.onnx")


def test_sparse_tensors(tmp_path: Path) -> None:
    values = numpy_helper.from_array(np.ones(1, np.float32), "sparse")
    places = numpy_helper.from_array(np.zeros(1, np.int64), "places")
    sparse = helper.make_sparse_tensor(values, places, [64])
    proto = model()
    proto.graph.sparse_initializer.append(sparse)
    save(tmp_path, proto)
    assert "has the sparse tensor sparse; make it dense" in refused(tmp_path)
    nodes = [
        helper.make_node("Constant", [], ["s"], sparse_value=sparse),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("Add", ["h", "s"], ["y"]),
    ]
    save(tmp_path, model(nodes))
    assert "has the sparse tensor s; make it dense" in refused(tmp_path)


def test_both_names_of_the_standard_domain_are_taken(tmp_path: Path) -> None:
    proto = model()
    proto.opset_import[0].domain = "ai.onnx"
    save(tmp_path, proto)
    compress_onnx(tmp_path / "model.onnx", tmp_path / "small.onnx")
    load_session(tmp_path / "small.onnx")


QDQ = [
    helper.make_node("DequantizeLinear", ["q", "s"], ["w"]),
    helper.make_node("MatMul", ["x", "w"], ["y"]),
]


@pytest.mark.parametrize(
    "nodes",
    [
        QDQ,
        [
            helper.make_node("DynamicQuantizeLinear", ["x"], ["i", "is", "iz"]),
            helper.make_node("MatMulInteger", ["i", "q", "iz"], ["p"]),
            helper.make_node("Cast", ["p"], ["f"], to=FLOAT),
            helper.make_node("Mul", ["f", "is"], ["y"]),
        ],
    ],
    ids=["QDQ", "integers"],
)
def test_a_file_that_is_quantized_already(nodes: list[onnx.NodeProto], tmp_path: Path) -> None:
    codes = numpy_helper.from_array(np.round(WEIGHT * 20).astype(np.int8), "q")
    onnx.save(
        model(nodes, [codes, numpy_helper.from_array(np.array(0.05, np.float32), "s")]), tmp_path / "m.onnx"
    )
    with pytest.raises(
        InputError, match=r"1 are quantized already, such as q \(int8\); expected a float mod"
    ):
        compress_onnx(tmp_path / "m.onnx", tmp_path / "c.onnx")
    assert not (tmp_path / "c.onnx").exists()


def test_what_is_quantized_already_is_left_alone_by_that_name(tmp_path: Path) -> None:
    codes = numpy_helper.from_array(np.round(WEIGHT * 20).astype(np.int8), "q")
    tensors = [
        codes,
        numpy_helper.from_array(np.array(0.05, np.float32), "s"),
        numpy_helper.from_array(WEIGHT, "v"),
    ]
    nodes = [
        QDQ[0],
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "v"], ["y"]),
    ]
    onnx.save(model(nodes, tensors), tmp_path / "m.onnx")
    report = compress_onnx(tmp_path / "m.onnx", tmp_path / "c.onnx")
    assert [each.name for each in report.weights] == ["v"]
    assert ("w", "it is quantized already, as q") in [(each.name, each.reason) for each in report.left_alone]
