"""Widths of a graph's weights by what their errors do to its answers."""

from pathlib import Path

import numpy as np
import onnx
import onnx_ir as ir
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from muquant import MuLawSpec
from muquant.compression.budget.spread import spread
from muquant.compression.options import CompressionOptions
from muquant_onnx import compress_onnx
from muquant_onnx.from_onnx.find import find_weights
from muquant_onnx.from_onnx.measure import measure_file
from muquant_onnx.from_onnx.read import read_graph


def numbers(seed: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


X = {"x": torch.from_numpy(numbers(9, 40, 64)), "never": torch.tensor(data=False)}


def save(path: Path, kind: int = TensorProto.FLOAT) -> Path:
    """A loud layer beside a quiet one, whose weight is a Constant node; a third in a branch never taken."""
    dtype = helper.tensor_dtype_to_np_dtype(kind)
    rare = helper.make_graph(
        [helper.make_node("MatMul", ["x", "rare"], ["z"])],
        "rare",
        [],
        [helper.make_tensor_value_info("z", kind, None)],
    )
    usual = helper.make_graph(
        [helper.make_node("MatMul", ["x", "loud"], ["w"])],
        "usual",
        [],
        [helper.make_tensor_value_info("w", kind, None)],
    )
    quiet = numpy_helper.from_array(numbers(2, 64, 16).astype(dtype))
    nodes = [
        helper.make_node("Constant", [], ["quiet"], value=quiet),
        helper.make_node("MatMul", ["x", "quiet"], ["b"]),
        helper.make_node("Mul", ["b", "little"], ["c"]),
        helper.make_node("If", ["never"], ["a"], then_branch=rare, else_branch=usual),
        helper.make_node("Add", ["a", "c"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [
            helper.make_tensor_value_info("x", kind, ["n", 64]),
            helper.make_tensor_value_info("never", TensorProto.BOOL, []),
        ],
        [helper.make_tensor_value_info("y", kind, ["n", 16])],
        [
            numpy_helper.from_array(numbers(1, 64, 16).astype(dtype), "loud"),
            numpy_helper.from_array(numbers(3, 64, 16).astype(dtype), "rare"),
            numpy_helper.from_array(np.array(0.001, dtype), "little"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


@pytest.mark.parametrize("kind", [TensorProto.FLOAT, TensorProto.FLOAT16], ids=["float32", "float16"])
@pytest.mark.parametrize("sampled", [False, True])
def test_the_noise_is_what_the_answers_lose(kind: int, sampled: bool, tmp_path: Path) -> None:
    source = save(tmp_path / "model.onnx", kind)
    options = CompressionOptions(spec=MuLawSpec(mu=1.5), calibration=X if sampled else None)
    weights = find_weights(read_graph(source).model)[0]
    measured = measure_file(source, dict.fromkeys(weights), options)
    curves = {each.name: each for each in measured.trusted(1.0)}
    assert curves["rare"].measured_on == "weight"  # no sample takes this branch
    if not sampled:  # of numbers that are no pictures and no tokens none are made up
        assert {curve.measured_on for curve in curves.values()} == {"weight"}
        assert {*spread(measured, 3).values()} == {3}
        return
    assert curves["loud"].measured_on == curves["quiet"].measured_on == "answers"
    ratio = curves["loud"].at(4).noise / curves["quiet"].at(4).noise
    assert 1e4 < ratio < 1e7  # the square of what the graph multiplies by


def test_a_graph_without_gradients_is_run_for_each_weight(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save(tmp_path / "model.onnx")
    options = CompressionOptions(spec=MuLawSpec(mu=1.5), calibration=X)
    weights = dict.fromkeys(find_weights(read_graph(source).model)[0])
    by_gradient = measure_file(source, weights, options).distortions

    def refuse(*_: object) -> None:
        raise RuntimeError("derivative is not implemented")

    monkeypatch.setattr("muquant_onnx.from_onnx.gradients.by_gradients", refuse)
    steps: list[str] = []
    by_run = measure_file(source, weights, options, lambda what, *_: steps.append(what)).distortions
    assert steps.count("measuring loud") == 2  # by itself, and in the graph
    for one, other in zip(by_gradient, by_run, strict=True):
        for bits in other:
            assert other[bits] / 3 <= one[bits] <= other[bits] * 3  # of losses a million times apart


def test_a_file_gets_bits_where_its_answers_depend_on_them(tmp_path: Path) -> None:
    source = save(tmp_path / "model.onnx")
    report = compress_onnx(source, tmp_path / "small.onnx", MuLawSpec(mu=1.5), calibration=X)
    found = {weight.name: weight.bits for weight in report.weights}
    assert found["loud"] > 3
    assert found["quiet"] == 2
    assert report.average_bits.codes <= 3
    report = compress_onnx(source, tmp_path / "small.onnx", MuLawSpec(mu=1.5), calibration=X, flat=True)
    assert {weight.bits for weight in report.weights} == {3}


def test_what_no_runtime_can_set_is_measured_on_itself(tmp_path: Path) -> None:
    source = save(tmp_path / "model.onnx", TensorProto.BFLOAT16)
    weights = find_weights(read_graph(source).model)[0]
    assert {each.tensor.dtype for each in weights} == {ir.DataType.BFLOAT16}
    options = CompressionOptions(spec=MuLawSpec(mu=1.5))
    curves = measure_file(source, dict.fromkeys(weights), options).trusted()
    assert {curve.measured_on for curve in curves} == {"weight"}
