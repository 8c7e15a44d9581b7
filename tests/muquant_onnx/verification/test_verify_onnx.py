"""A compressed ONNX file beside the float file it was made from."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

import muquant as mq
from muquant_onnx import compress_onnx, verify_onnx
from muquant_onnx.verification.runners.onnxruntime import OnnxRuntime
from muquant_onnx.verification.runners.runtime import Opened, Way

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("quick")]


def write(path: Path, width: int = 64, text: bool = False, numbers: bool = True) -> Path:
    """Two products with a Tanh between them; an output may be a text."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.standard_normal((width, width)).astype(np.float32), name)
        for name in ("a", "b")
    ]
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["t"]),
        helper.make_node("Tanh", ["t"], ["u"]),
        helper.make_node("MatMul", ["u", "b"], ["logits"]),
        helper.make_node("Cast", ["logits"], ["text"], to=TensorProto.STRING),
    ]
    value = helper.make_tensor_value_info
    outputs = [value("logits", TensorProto.FLOAT, ["n", width])] if numbers else []
    outputs += [value("text", TensorProto.STRING, ["n", width])] if text else []
    graph = helper.make_graph(nodes, "g", [value("x", TensorProto.FLOAT, ["n", width])], outputs, weights)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10), path)
    return path


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    compress_onnx(write(folder / "float.onnx"), folder / "small.onnx", policy="int8", check=False)
    return folder


def test_an_honest_file_passes_by_every_policy(folder: Path) -> None:
    report = verify_onnx(folder / "float.onnx", folder / "small.onnx")
    assert report.passed
    assert report.weights == ()
    assert report.count == 8
    ways = {(check.setting, check.policy): check for check in report.runtimes}
    assert list(ways)[3:] == [("default", policy) for policy in ("float", "int8", "auto", "packed")]
    assert ways["default", None].operators["MatMulNBits"] == 2
    assert 1e-5 < ways["default", None].difference < 0.05
    assert max(check.difference for way, check in ways.items() if not check.kernels) < 1e-5
    assert report.answers is not None
    assert report.answers.inputs == "synthetic inputs"
    assert report.answers.sqnr is not None
    assert 5 < report.answers.sqnr < 30
    (beside,) = report.floats
    assert beside.failed == ""
    assert beside.cost is not None
    assert beside.cost.nbytes == (folder / "float.onnx").stat().st_size


def test_files_for_the_4_bit_kernel_are_run_by_it(folder: Path) -> None:
    spec = mq.MuLawSpec(grid="int4")
    compress_onnx(folder / "float.onnx", folder / "four.onnx", spec, policy="int4", check=False)
    report = verify_onnx(folder / "float.onnx", folder / "four.onnx")
    assert report.passed
    assert {"int4", "int8"} < {check.policy for check in report.runtimes}


def test_samples_are_run_in_the_place_of_inputs_that_are_made_up(folder: Path) -> None:
    samples = {"x": np.random.default_rng(1).standard_normal((40, 64)).astype(np.float32)}
    report = verify_onnx(folder / "float.onnx", folder / "small.onnx", samples)
    assert report.passed
    assert report.count == 40
    assert report.answers is not None
    assert report.answers.inputs == "samples"


def test_a_runtime_that_answers_otherwise_fails(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = OnnxRuntime.open

    def off(own: OnnxRuntime, path: str, way: Way, scratch: Path) -> Opened:
        opened = whole(own, path, way, scratch)

        def run(feed: Mapping[str, NDArray[Any]]) -> Sequence[Any]:
            return [output + np.float32(0.1) for output in opened.run(feed)]

        return opened if way.policy == "packed" else replace(opened, run=run)

    monkeypatch.setattr(OnnxRuntime, "open", off)
    report = verify_onnx(folder / "float.onnx", folder / "small.onnx")
    assert not report.passed
    exact = {check.policy: check.passed for check in report.runtimes if not check.kernels}
    assert exact == {None: False, "float": False, "auto": False, "packed": True}


def test_outputs_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    source, small = write(tmp_path / "float.onnx", text=True), tmp_path / "small.onnx"
    compress_onnx(source, small, check=False)
    assert verify_onnx(source, small).passed
    source = write(tmp_path / "text.onnx", text=True, numbers=False)
    compress_onnx(source, small, check=False)
    with pytest.raises(mq.InputError, match="has no output that is an array of numbers"):
        verify_onnx(source, small)


def test_files_that_are_not_what_they_should_be_are_refused(folder: Path, tmp_path: Path) -> None:
    source, small = folder / "float.onnx", folder / "small.onnx"
    with pytest.raises(mq.InputError, match="was compressed by muquant already; name the float model"):
        verify_onnx(small, small)
    with pytest.raises(mq.InputError, match="without compressed weights"):
        verify_onnx(source, source)
    for one, other in ((tmp_path / "no.onnx", small), (source, tmp_path / "no.onnx")):
        with pytest.raises(mq.InputError, match=r"cannot read .*no\.onnx"):
            verify_onnx(one, other)
    with pytest.raises(mq.InputError, match=r"small\.onnx does not run on what the float file runs on"):
        verify_onnx(write(tmp_path / "wide.onnx", 96), small)
    more = onnx.load(source)
    more.graph.output.append(more.graph.output[0])
    more.graph.output[-1].name = more.graph.node[0].output[0]
    onnx.save(more, tmp_path / "more.onnx")
    with pytest.raises(mq.InputError, match=r"small\.onnx has 1 outputs, and .*more\.onnx has 2"):
        verify_onnx(tmp_path / "more.onnx", small)
    with pytest.raises(mq.InputError, match="input x has the shape"):
        verify_onnx(source, small, np.zeros((8, 3), np.float32))
    with pytest.raises(mq.InputError, match="runtime 'tract' is unknown"):
        verify_onnx(source, small, runtimes=["tract"])
