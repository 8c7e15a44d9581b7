"""Graphs that are run piece by piece, beside the same graphs run at once."""

from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from muquant import MuLawSpec
from muquant.compression.calibration import split
from muquant.quantization.outcome import Outcome
from muquant.quantization.quantize import quantize
from muquant_onnx import compress_onnx
from muquant_onnx.from_onnx import replay
from muquant_onnx.from_onnx.calibrate import graph_samples
from muquant_onnx.from_onnx.feeds import Batch
from muquant_onnx.from_onnx.find import FoundWeight, find_weights
from muquant_onnx.from_onnx.floats import read_float
from muquant_onnx.from_onnx.read import read_graph
from muquant_onnx.from_onnx.replay import Replay

Array = NDArray[Any]


def numbers(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def network(path: Path) -> Path:
    """Two products on one value, a residual, a branch of which one side adds, a weight that two layers have,
    a transposed one, and one that is a Constant's."""
    branch = [
        helper.make_graph(
            [helper.make_node(op, ["sum", "c"], [f"{op}_out"])],
            op,
            [],
            [helper.make_tensor_value_info(f"{op}_out", TensorProto.FLOAT, None)],
        )
        for op in ("Add", "Sub")
    ]
    weights = {
        "q": numbers(0, 12, 12),
        "k": numbers(1, 12, 12),
        "last": numbers(2, 7, 12),
        "twice": numbers(3, 12, 12) / 3,
        "qb": numbers(4, 12),
        "c": np.float32(0.5).reshape(1),
        "zero": np.float32(0).reshape(1),
    }
    nodes = [
        helper.make_node("MatMul", ["x", "q"], ["q0"]),
        helper.make_node("Add", ["q0", "qb"], ["q1"]),
        helper.make_node("MatMul", ["x", "k"], ["k1"]),
        helper.make_node("Relu", ["q1"], ["q2"]),
        helper.make_node("Mul", ["q2", "k1"], ["qk"]),
        helper.make_node("Add", ["qk", "x"], ["sum"]),
        helper.make_node("ReduceSum", ["x"], ["total"], keepdims=0),
        helper.make_node("Greater", ["total", "zero"], ["many"]),
        helper.make_node("Squeeze", ["many"], ["positive"]),
        helper.make_node("If", ["positive"], ["chosen"], then_branch=branch[0], else_branch=branch[1]),
        helper.make_node("Constant", [], ["inner"], value=numpy_helper.from_array(numbers(5, 12, 12) / 3)),
        helper.make_node("MatMul", ["chosen", "inner"], ["m"]),
        helper.make_node("MatMul", ["m", "twice"], ["t1"]),
        helper.make_node("MatMul", ["t1", "twice"], ["t2"]),
        helper.make_node("Transpose", ["last"], ["turned"], perm=[1, 0]),
        helper.make_node("MatMul", ["t2", "turned"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 12])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 7])],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def shown(path: Path, names: list[str], x: Array) -> list[Array]:
    """Oracle: values of a graph as its outputs."""
    model = onnx.load(path)
    model.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    found: list[Array] = ort.InferenceSession(model.SerializeToString(), options).run(names, {"x": x})
    return found


@pytest.mark.parametrize("memory", [replay.MEMORY, 0])
def test_pieces_show_what_the_whole_does(
    memory: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(replay, "MEMORY", memory)
    monkeypatch.setattr(replay, "SMALL", 0)
    path = network(tmp_path / "model.onnx")
    x = [numbers(seed, 9, 12) - (seed == 12) for seed in (10, 11, 12)]
    both = Replay(path, [Batch({"x": each}, 9) for each in x])
    (first,) = [list(both.to("x"))]
    assert all(one is other for one, other in first)
    weights = {weight.name: weight for weight in find_weights(read_graph(path).model)[0]}
    assert {"q", "k", "last", "twice", "inner"} == {weight.source for weight in weights.values()}
    for name in ("q", "k"):
        both.put(
            name,
            quantize(
                read_float(weights[name].tensor), MuLawSpec(2), weights[name].channels, "search", "nearest"
            ),
        )
    changed = onnx.load(path)
    for tensor in changed.graph.initializer:
        if tensor.name in ("q", "k"):
            weight = weights[tensor.name]
            outcome = quantize(read_float(weight.tensor), MuLawSpec(2), weight.channels, "search", "nearest")
            tensor.CopyFrom(numpy_helper.from_array(outcome.tensor.dequantize().numpy(), tensor.name))
    onnx.save(changed, tmp_path / "changed.onnx")
    names = ["chosen", "m", "t1", "t2"]
    for name in names:
        for batch, (one, other) in zip(x, both.to(name), strict=True):
            np.testing.assert_allclose(one, shown(path, [name], batch)[0], rtol=1e-5, atol=1e-6)
            expected = shown(tmp_path / "changed.onnx", [name], batch)[0]
            np.testing.assert_allclose(other, expected, rtol=1e-5, atol=1e-6)
            assert np.abs(one - other).max() > 1e-2


def test_layers_see_what_those_in_front_have_become(tmp_path: Path) -> None:
    path = network(tmp_path / "model.onnx")
    done: dict[FoundWeight, Outcome] = {}
    weights = find_weights(read_graph(path).model)[0]
    drifts = {}
    for weight, samples, _ in graph_samples(path, weights, split(torch.from_numpy(numbers(1, 64, 12))), done):
        assert samples is not None
        drifts[weight.source] = samples.fit.drift is not None
        done[weight] = quantize(
            read_float(weight.tensor), MuLawSpec(3), weight.channels, "search", "reconstructed", samples
        )
    assert drifts == {"q": False, "k": False, "inner": True, "twice": False, "last": True}


def test_it_pays(tmp_path: Path) -> None:
    """Of eight layers in a row the outputs are nearer than where each is judged alone."""
    sizes = [24] * 9
    weights = {f"w{place}": numbers(place, *pair) / 4 for place, pair in enumerate(pairwise(sizes))}
    nodes, value = [], "x"
    for name in weights:
        nodes += [helper.make_node("MatMul", [value, name], [f"{name}m"])]
        nodes += [helper.make_node("Tanh", [f"{name}m"], [f"{name}y"])]
        value = f"{name}y"
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 24])],
        [helper.make_tensor_value_info(value, TensorProto.FLOAT, ["n", 24])],
        [numpy_helper.from_array(each, name) for name, each in weights.items()],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    samples = numbers(50, 2000, 24) @ numbers(51, 24, 24) / 5
    report = compress_onnx(path, tmp_path / "small.onnx", flat=True, calibration=samples)
    known = graph_samples(path, find_weights(read_graph(path).model)[0], split(torch.from_numpy(samples)))
    alone = onnx.load(path)
    for (weight, moments, _), tensor in zip(known, alone.graph.initializer, strict=True):
        found = quantize(
            read_float(weight.tensor), MuLawSpec(3), weight.channels, "search", "reconstructed", moments
        )
        tensor.CopyFrom(numpy_helper.from_array(found.tensor.dequantize().numpy(), tensor.name))
    test = numbers(60, 500, 24) @ numbers(51, 24, 24) / 5
    exact = ort.InferenceSession(path).run(None, {"x": test})[0]
    one = ort.InferenceSession(tmp_path / "small.onnx").run(None, {"x": test})[0]
    other = ort.InferenceSession(alone.SerializeToString()).run(None, {"x": test})[0]
    assert np.square(one - exact).sum() < 0.8 * np.square(other - exact).sum()
    assert report.answers is not None
