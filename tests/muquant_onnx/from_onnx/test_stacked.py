"""Weights of a graph whose channels are several axes: stacked matrices, groups, what a Reshape merges."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import muquant as mq
from muquant_onnx import compress_onnx, decode_file, load_session

FLOAT = TensorProto.FLOAT


class Case(NamedTuple):
    """A graph of one layer, and what belongs to one channel of its weight.

    Attributes:
        nodes: from x and w to y.
        shape: of w, as it is stored.
        x: shape of the input.
        channels: how many there are.
        rows: makes a matrix [channels, inputs] of the stored weight.
        more: other initializers.
    """

    nodes: list[onnx.NodeProto]
    shape: tuple[int, ...]
    x: tuple[int, ...]
    channels: int
    rows: Any
    more: Mapping[str, Any] = MappingProxyType({})


def _node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attributes)


CASES = {
    "stacked": Case(
        [_node("MatMul", "x w", "y")], (3, 8, 5), (4, 8), 15, lambda w: w.transpose(0, 2, 1).reshape(15, 8)
    ),
    "stacked twice": Case(
        [_node("MatMul", "x w", "y")],
        (2, 3, 8, 5),
        (2, 3, 4, 8),
        30,
        lambda w: w.transpose(0, 1, 3, 2).reshape(30, 8),
    ),
    "stacked, left-hand": Case(
        [_node("MatMul", "w x", "y")], (3, 5, 8), (3, 8, 4), 15, lambda w: w.reshape(15, 8)
    ),
    "stacked behind a Transpose": Case(
        [_node("Transpose", "w", "t", perm=[0, 2, 1]), _node("MatMul", "x t", "y")],
        (3, 5, 8),
        (4, 8),
        15,
        lambda w: w.reshape(15, 8),
    ),
    "stacked by a Reshape": Case(
        [_node("Reshape", "w s", "t"), _node("MatMul", "x t", "y")],
        (24, 5),
        (4, 8),
        15,
        lambda w: w.reshape(3, 8, 5).transpose(0, 2, 1).reshape(15, 8),
        {"s": np.array([3, 8, 5])},
    ),
    "merged by a Reshape": Case(
        [_node("Reshape", "w s", "t"), _node("Gemm", "x t", "y", transB=1)],
        (3, 5, 8),
        (4, 8),
        15,
        lambda w: w.reshape(15, 8),
        {"s": np.array([15, 8])},
    ),
    "a stack of one": Case(
        [_node("MatMul", "x w", "y")], (1, 8, 5), (4, 8), 5, lambda w: w.transpose(0, 2, 1).reshape(5, 8)
    ),
    "transposed convolution": Case(
        [_node("ConvTranspose", "x w", "y")],
        (4, 3, 5),
        (2, 4, 6),
        3,
        lambda w: w.transpose(1, 0, 2).reshape(3, 20),
    ),
    "transposed convolution in groups": Case(
        [_node("ConvTranspose", "x w b", "y", group=2)],
        (4, 3, 5, 2),
        (2, 4, 6, 6),
        6,
        lambda w: w.reshape(2, 2, 3, 10).transpose(0, 2, 1, 3).reshape(6, 20),
        {"b": np.ones(6, np.float32)},
    ),
    "depthwise transposed convolution": Case(
        [_node("ConvTranspose", "x w", "y", group=4)],
        (4, 2, 5),
        (2, 4, 6),
        8,
        lambda w: w.reshape(8, 5),
    ),
}


def _save(case: Case, path: Path) -> NDArray[np.float32]:
    """Write the graph, with channels whose weights are of very different sizes; return the weight."""
    random = np.random.default_rng(0)
    places = case.rows(np.arange(int(np.prod(case.shape))).reshape(case.shape))
    weight = np.empty(places.size, np.float32)
    gains = np.logspace(0, -4, case.channels)
    weight[places.ravel()] = (random.standard_normal(places.shape) * gains[:, None]).ravel()
    stored = weight.reshape(case.shape)
    tensors = {"w": stored, **case.more}
    graph = helper.make_graph(
        case.nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, case.x)],
        [helper.make_tensor_value_info("y", FLOAT, None)],
        [numpy_helper.from_array(values, name) for name, values in tensors.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return stored


@pytest.mark.parametrize("granularity", ["channel", "group:4", "tensor"])
@pytest.mark.parametrize("name", CASES)
def test_each_channel_has_its_scale_and_every_way_gives_the_same(
    name: str, granularity: str, tmp_path: Path
) -> None:
    case, source, path = CASES[name], tmp_path / "model.onnx", tmp_path / "small.onnx"
    weight = _save(case, source)
    compress_onnx(source, path, mq.MuLawSpec(4, granularity=granularity), synthetic=False)
    decoded = decode_file(path)["w"]
    if granularity != "tensor":
        rows, error = case.rows(weight), case.rows(weight - decoded)
        ratio = 10 * np.log10((rows**2).sum(1) / (error**2).sum(1))
        assert rows.shape[0] == case.channels
        assert ratio.min() > 12  # one scale for several channels loses all of the small ones
    x = {"x": np.random.default_rng(1).standard_normal(case.x).astype(np.float32)}
    model = onnx.load(source)
    model.graph.initializer[0].CopyFrom(numpy_helper.from_array(decoded, "w"))
    wanted = ort.InferenceSession(model.SerializeToString()).run(None, x)[0]
    sessions = [load_session(path, setting) for setting in ("default", "unoptimized")]
    sessions += [load_session(path, policy=policy) for policy in ("auto", "float", "int8", "int4", "packed")]
    for session in sessions:
        np.testing.assert_allclose(session.run(None, x)[0], wanted, rtol=0, atol=1e-5 * np.abs(wanted).max())


def test_what_one_axis_says_is_written_as_ever(tmp_path: Path) -> None:
    """Files of networks that were always taken stay as they are, byte for byte."""
    said = {}
    for name, case in CASES.items():
        _save(case, tmp_path / "model.onnx")
        compress_onnx(tmp_path / "model.onnx", tmp_path / "small.onnx")
        block = onnx.load(tmp_path / "small.onnx").metadata_props[0].value
        entry = json.loads(block)["weights"]["w"]
        said[name] = entry["channel_axis"], entry.get("channel_groups")
    assert said == {
        "stacked": ([0, 2], None),
        "stacked twice": ([0, 1, 3], None),
        "stacked, left-hand": ([0, 1], None),
        "stacked behind a Transpose": ([0, 1], None),
        "stacked by a Reshape": ([1], 3),
        "merged by a Reshape": ([0, 1], None),
        "a stack of one": (2, None),
        "transposed convolution": (1, None),
        "transposed convolution in groups": ([1], 2),
        "depthwise transposed convolution": ([0, 1], None),
    }
