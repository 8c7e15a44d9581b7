"""Inputs that are made up stand for samples where there are none."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from muquant import MuLawSpec
from muquant_onnx import compress_onnx, load_session

SPEC = MuLawSpec(mu=1.5)


def numbers(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def save(path: Path) -> Path:
    """Two convolutions of pictures; white noise is unlike what they see."""
    nodes = [
        helper.make_node("Conv", ["x", "a", "b"], ["h"], pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Conv", ["r", "c"], ["y"], pads=[1, 1, 1, 1]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 24, 24])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4, 24, 24])],
        [
            numpy_helper.from_array(numbers(1, 16, 3, 3, 3), "a"),
            numpy_helper.from_array(numbers(2, 16), "b"),
            numpy_helper.from_array(numbers(3, 4, 16, 3, 3), "c"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_codes_are_fitted_to_them_and_it_is_said(tmp_path: Path) -> None:
    source = save(tmp_path / "model.onnx")
    report = compress_onnx(source, tmp_path / "small.onnx", SPEC)
    assert report.synthetic == 64  # 32 batches of 2
    assert "nearest" not in {weight.rounding for weight in report.weights}
    assert report.answers is not None
    assert report.answers.inputs == "synthetic inputs"
    again = compress_onnx(source, tmp_path / "again.onnx", SPEC)
    assert (tmp_path / "small.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()
    assert again.weights == report.weights


def test_of_sounds_and_features_none_are_made_up(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [numpy_helper.from_array(numbers(1, 64, 64), "a"), numpy_helper.from_array(numbers(2, 64, 5), "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    report = compress_onnx(model, tmp_path / "small.onnx")
    assert report.synthetic == 0
    assert [(weight.bits, weight.rounding) for weight in report.weights] == 2 * [(3, "balanced")]


def test_tokens_are_any_of_the_table(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Gather", ["table", "ids"], ["e"]),
        helper.make_node("MatMul", ["e", "a"], ["h"]),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "b"], ["y"]),
    ]
    weights = {"table": numbers(3, 50, 16), "a": numbers(1, 16, 32), "b": numbers(2, 32, 50)}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("ids", TensorProto.INT64, ["n", "t"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "t", 50])],
        [numpy_helper.from_array(each, name) for name, each in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    assert compress_onnx(model, tmp_path / "small.onnx").synthetic > 0


def test_pictures_are_answered_better_than_by_the_weights_alone(tmp_path: Path) -> None:
    source = save(tmp_path / "model.onnx")
    session = load_session(source)
    smooth = np.cumsum(np.cumsum(numbers(9, 16, 3, 24, 24), 2), 3)
    smooth /= smooth.std()
    exact = session.run(None, {"x": smooth})[0]
    errors = []
    for synthetic in (True, False):
        compress_onnx(source, tmp_path / "small.onnx", SPEC, synthetic=synthetic)
        found = load_session(tmp_path / "small.onnx").run(None, {"x": smooth})[0]
        errors.append(float(np.square(found - exact).sum()))
    assert errors[0] < 0.8 * errors[1]


@pytest.mark.parametrize("options", [{"synthetic": False}, {"flat": True}, {"rounding": "nearest"}], ids=str)
def test_they_are_left_out_where_that_is_asked(options: dict[str, object], tmp_path: Path) -> None:
    report = compress_onnx(save(tmp_path / "model.onnx"), tmp_path / "small.onnx", SPEC, **options)  # type: ignore[arg-type]
    assert report.synthetic == 0
    assert {weight.rounding for weight in report.weights} == {options.get("rounding", "balanced")}
