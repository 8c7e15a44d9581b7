"""A model in memory is compressed like the file that it would be."""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import muquant_onnx.from_onnx.given as given
from muquant import InputError, MuLawSpec
from muquant_onnx import compress_onnx, plan_onnx


def model(opset: int = 17) -> onnx.ModelProto:
    weight = np.random.default_rng(0).standard_normal((64, 64)).astype(np.float32)
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 64]) for name in "xy"]
    product = helper.make_node("MatMul", ["x", "w"], ["y"])
    graph = helper.make_graph([product], "g", info[:1], info[1:], [numpy_helper.from_array(weight, "w")])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)


def external() -> onnx.ModelProto:
    proto = model()
    (tensor,) = proto.graph.initializer
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="weights.data")
    return proto


@pytest.mark.parametrize("form", [bytes, onnx.ModelProto])
def test_a_model_in_memory_is_the_file(form: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model.onnx").write_bytes(model().SerializeToString())
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    source = model() if form is onnx.ModelProto else model().SerializeToString()
    results = []
    for each in (tmp_path / "model.onnx", source):
        plan = plan_onnx(each, MuLawSpec(mu=1.5), max_bytes=2500)
        compress_onnx(each, tmp_path / "small.onnx", MuLawSpec(mu=1.5), overrides=plan.overrides)
        results.append((plan, (tmp_path / "small.onnx").read_bytes()))
    assert results[0] == results[1]
    assert form is bytes or source == model()
    assert not list((tmp_path / "temporary").iterdir())


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (b"", "the model is not a whole ONNX file"),
        (model(opset=0), "the model has opset 0, expected 7"),
        (external(), "the model has the tensor w in the file weights.data, and no folder; give the path"),
        (
            external().SerializeToString(),
            "the model has the tensor w in the file weights.data, and no folder",
        ),
        (model().graph, "found a model of type GraphProto, expected the path of an ONNX file, its bytes or"),
    ],
    ids=["nothing", "an opset", "external", "external bytes", "a graph"],
)
def test_messages_speak_of_the_model(source: Any, message: str, tmp_path: Path) -> None:
    for call in (
        lambda: compress_onnx(source, tmp_path / "small.onnx"),
        lambda: plan_onnx(source, max_bytes=2500),
    ):
        with pytest.raises(InputError) as caught:
            call()
        assert str(caught.value).startswith(message)
    assert not list(tmp_path.iterdir())


def test_what_one_file_cannot_hold_needs_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(given, "INLINE_LIMIT", 1000)
    with pytest.raises(InputError, match=r"more than the 1,000 of one ONNX file; save it with external data"):
        compress_onnx(model(), tmp_path / "small.onnx")
