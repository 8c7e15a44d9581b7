"""Weights inside branches and loops: what they are multiplied by is seen from outside."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import helper, numpy_helper, parser

from muquant.compression.calibration import split
from muquant_onnx import CompressReport, compress_onnx, load_session
from muquant_onnx.from_onnx import find_weights, read_graph
from muquant_onnx.from_onnx.calibrate import graph_samples

COUNT = 64
HELD_OUT = np.arange(COUNT) % 4 == 3

BRANCH = """
<ir_version: 9, opset_import: ["" : 17]>
g (float[n,5,12] x) => (float[n,5,9] y) {
  sum = ReduceSum <keepdims = 0> (x)
  least = Constant <value = float {-1e30}> ()
  always = Greater (sum, least)
  y = If (always) <
    then_branch = then () => (float[n,5,9] a) {
      twice = Add (x, x)
      a = MatMul (twice, w)
    },
    else_branch = other () => (float[n,5,9] b) { b = MatMul (x, unused) }
  >
}
"""
NESTED = """
<ir_version: 9, opset_import: ["" : 17]>
g (float[n,5,12] x) => (float[5,n,9] y) {
  count = Constant <value = int64 {5}> ()
  go = Constant <value = bool {1}> ()
  least = Constant <value = float {-1e30}> ()
  y = Loop (count, go) <body = body (int64 i, bool on) => (bool more, float[n,9] out) {
    more = Identity (on)
    row = Gather <axis = 1> (x, i)
    sum = ReduceSum <keepdims = 0> (row)
    always = Greater (sum, least)
    out = If (always) <
      then_branch = then () => (float[n,9] a) { a = MatMul (row, w) },
      else_branch = other () => (float[n,9] b) { b = MatMul (row, w) }
    >
  }>
}
"""
SCAN = """
<ir_version: 9, opset_import: ["" : 17]>
g (float[n,5,12] x) => (float[n,5,9] y) {
  y = Scan <num_scan_inputs = 1, scan_input_axes = [1], scan_output_axes = [1],
    body = body (float[n,12] row) => (float[n,9] out) { out = MatMul (row, w) }> (x)
}
"""
LOOP = """
<ir_version: 9, opset_import: ["" : 17]>
g (float[n,5,12] x) => (float[5,n,9] y) {
  count = Constant <value = int64 {5}> ()
  go = Constant <value = bool {1}> ()
  y = Loop (count, go) <body = body (int64 i, bool on) => (bool more, float[n,9] out) {
    more = Identity (on)
    row = Gather <axis = 1> (x, i)
    out = Gemm <transB = 1> (row, t)
  }>
}
"""
GROWING = """
<ir_version: 9, opset_import: ["" : 17]>
g (float[n,5,12] x) => (float[n,5,9] y, float[1] z) {
  y = MatMul (x, w)
  count = Constant <value = int64 {5}> ()
  go = Constant <value = bool {1}> ()
  nothing = Constant <value = float[1] {0}> ()
  z = Loop (count, go, nothing) <
    body = body (int64 i, bool on, float[1] before) => (bool more, float[1] after) {
    more = Identity (on)
    axis = Constant <value = int64[1] {1}> ()
    first = Constant <value = int64[1] {0}> ()
    one = Constant <value = int64[1] {1}> ()
    end = Add (i, one)
    part = Slice (x, first, end, axis)
    product = MatMul (part, inner)
    added = ReduceSum <keepdims = 0> (product)
    after = Add (before, added)
  }>
}
"""


def numbers(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


X = (numbers(1, COUNT, 5, 12).cumsum(-1) + 5).astype(np.float32)
WEIGHTS = {
    "w": numbers(0, 12, 9),
    "unused": numbers(2, 12, 9),
    "inner": numbers(3, 12, 4),
    "t": numbers(4, 9, 12),
}


def compressed(text: str, folder: Path) -> CompressReport:
    model = parser.parse_model(text)
    model.graph.initializer.extend(
        numpy_helper.from_array(values, name) for name, values in WEIGHTS.items() if f" {name})" in text
    )
    onnx.save(model, folder / "model.onnx")
    return compress_onnx(
        folder / "model.onnx", folder / "small.onnx", calibration=torch.from_numpy(X), policy="float"
    )


@pytest.mark.parametrize("text", [BRANCH, SCAN, LOOP, NESTED], ids=["If", "Scan", "Loop", "If in a Loop"])
def test_what_a_weight_inside_is_multiplied_by_is_seen(text: str, tmp_path: Path) -> None:
    """Oracle: the quality of its output is that of the graph's."""
    report = {weight.name: weight for weight in compressed(text, tmp_path).weights}
    weight = report["t" if text is LOOP else "w"]
    exact, found = (
        load_session(tmp_path / name, "unoptimized").run(None, {"x": X[HELD_OUT]})[0].astype(np.float64)
        for name in ("model.onnx", "small.onnx")
    )
    ratio = 10 * np.log10(np.square(exact).sum() / np.square(exact - found).sum())
    assert weight.not_calibrated == ""
    assert weight.output_sqnr == pytest.approx(ratio, rel=1e-3)
    assert weight.nearest_output_sqnr is not None
    assert ratio > weight.nearest_output_sqnr + 0.5
    if text is BRANCH:
        assert report["unused"].not_calibrated == "the samples do not reach it"


def test_where_sizes_change_from_step_to_step_the_report_says_so(tmp_path: Path) -> None:
    weight, inner = compressed(GROWING, tmp_path).weights
    assert weight.output_sqnr is not None
    assert "sizes change from step to step" in inner.not_calibrated
    assert (inner.rounding, inner.output_sqnr) == ("balanced", None)


def test_a_weight_that_is_changed_before_it_multiplies(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Mul", ["w", "s"], ["v"]), helper.make_node("MatMul", ["x", "v"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 5, 12])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [numpy_helper.from_array(WEIGHTS["w"], "w"), numpy_helper.from_array(numbers(5, 9), "s")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    (weight,) = compress_onnx(
        tmp_path / "model.onnx", tmp_path / "small.onnx", calibration=torch.from_numpy(X)
    ).weights
    assert weight.not_calibrated == "Mul makes another weight of it"


def test_the_inputs_of_a_recurrent_layer_are_seen_and_its_states_are_not(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [
            helper.make_node("Transpose", ["x"], ["t"], perm=[1, 0, 2]),
            helper.make_node("LSTM", ["t", "w", "r"], ["y"], hidden_size=6, direction="bidirectional"),
        ],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 5, 12])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, None)],
        [
            numpy_helper.from_array(numbers(0, 2, 24, 12), "w"),
            numpy_helper.from_array(numbers(1, 2, 24, 6), "r"),
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "model.onnx")
    weights = find_weights(read_graph(tmp_path / "model.onnx").model)[0]
    x = torch.from_numpy(X)
    known = list(graph_samples(tmp_path / "model.onnx", weights, split(x)))
    assert [(weight.name, why) for weight, _, why in known] == [
        ("w", ""),
        ("r", "what LSTM multiplies it by is not seen"),
    ]
    rows = x[~torch.from_numpy(HELD_OUT)].reshape(-1, 12)
    moments = known[0][1]
    assert moments is not None
    torch.testing.assert_close(moments.fit.second[0], rows.T @ rows / len(rows))
