"""Runtimes that are packages of Python, in processes of their own and here."""

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import load_file, save_file

from muquant_onnx.verification.runners import RUNTIMES, runtime
from muquant_onnx.verification.runners.child import is_numbers, measure
from muquant_onnx.verification.runners.onnxruntime import operators_of
from muquant_onnx.verification.runners.openvino import OpenVino
from muquant_onnx.verification.runners.runtime import (
    Measured,
    Opened,
    PythonRuntime,
    Request,
    Way,
    process,
)

PYTHON = [name for name, known in RUNTIMES.items() if isinstance(known, PythonRuntime)]


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    """Asks for the shape and the double of x, which has to have four columns."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 4]) for name in "xy")
    one, other = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    shape = helper.make_tensor_value_info("shape", TensorProto.INT64, [2])
    nodes = [helper.make_node("Add", ["x", "x"], ["y"]), helper.make_node("Shape", ["x"], ["shape"])]
    for file, graph in (
        ("model", helper.make_graph(nodes, "g", [x], [y, shape])),
        ("empty", helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "g", [one], [other])),
    ):
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, tmp_path / f"{file}.onnx")
    for name, sizes in (("one", (1, 4)), ("many", (32, 4)), ("bad", (3, 5))):
        save_file({"x": np.ones(sizes, np.float32)}, tmp_path / name)
    (tmp_path / "out").mkdir()
    return Request(
        path=str(tmp_path / "model.onnx"),
        empty=str(tmp_path / "empty.onnx"),
        way=Way(),
        timed={1: str(tmp_path / "one"), 2: str(tmp_path / "bad"), 32: str(tmp_path / "many")},
        feeds=[str(tmp_path / "one"), str(tmp_path / "many")],
        outputs=str(tmp_path / "out"),
        seconds=0.0,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", PYTHON)
def test_a_process_runs_a_file_and_says_what_that_takes(name: str, request_: Request) -> None:
    known = RUNTIMES[name]
    if known.missing():
        pytest.skip(f"{name}: {known.missing()}")
    assert known.version()[0].isdigit()
    found = known.measure(request_)
    assert (found.failed, found.outputs) == ("", 2)
    for number, rows in ((0, 1), (1, 32)):
        arrays = load_file(Path(request_.outputs, f"{number}.safetensors"))
        np.testing.assert_array_equal(arrays["0"], np.full((rows, 4), 2, np.float32))
        np.testing.assert_array_equal(arrays["1"], [rows, 4])
        assert set(arrays) == {"0", "1"}
    assert found.seconds > 0
    assert found.latency
    assert {1, 32} <= set(found.latency)
    assert found.peak is not None
    assert found.loaded is not None
    assert found.peak >= found.loaded
    if name == "onnxruntime":
        assert found.operators == {"Add": 1, "Shape": 1}


@pytest.mark.parametrize("name", PYTHON)
def test_what_cannot_be_run_is_a_line(name: str, request_: Request) -> None:
    known = RUNTIMES[name]
    assert isinstance(known, PythonRuntime)
    if known.missing():
        pytest.skip(f"{name}: {known.missing()}")
    model = onnx.load(request_.path)
    model.graph.node[0].op_type = "Frobnicate"
    onnx.save(model, request_.path)
    found = measure(known, request_)
    assert "Frobnicate" in found.failed
    assert "\n" not in found.failed
    Path(request_.path).write_bytes(b"no model")
    assert measure(known, request_).failed


def test_inputs_that_do_not_fit_are_left_out_of_the_latencies_and_fail_where_they_are_compared(
    request_: Request,
) -> None:
    reference = RUNTIMES["onnxruntime"]
    assert isinstance(reference, PythonRuntime)
    assert set(measure(reference, request_).latency) == {1, 32}
    bad = replace(request_, feeds=[request_.timed[2]])
    assert "dimension" in measure(reference, bad).failed


class Mixed(PythonRuntime):
    """Answers a text, a list and a number."""

    package = "numpy"

    def open(self, path: str, way: Way, scratch: Path) -> Opened:
        return Opened(lambda _: [np.array(["a"]), [np.zeros(1)], np.float32(3).reshape(())])


def test_outputs_that_are_no_numbers_are_counted_and_not_written(request_: Request) -> None:
    assert measure(Mixed(), request_).outputs == 3
    arrays = load_file(Path(request_.outputs, "0.safetensors"))
    assert list(arrays) == ["2"]
    assert arrays["2"].shape == ()
    assert not is_numbers([np.zeros(1)])


class Absent(Mixed):
    """Of a package that is not there."""

    package = "package_that_nobody_has"


def test_a_package_that_is_not_there_is_missing_with_what_to_install() -> None:
    assert Absent().missing() == "not installed; pip install package_that_nobody_has"
    assert RUNTIMES["onnxruntime"].missing() == RUNTIMES["onnx-reference"].missing() == ""


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "status -9: no word"),
        ("raise SystemExit('the end')", "status 1: the end"),
        ("", "status 0: no word"),
        (
            "import nothing_of_the_kind",
            "status 1: ModuleNotFoundError: No module named 'nothing_of_the_kind'",
        ),
        ("import sys; print('Error: why\\nv1.2', file=sys.stderr); sys.exit(1)", "status 1: Error: why"),
    ],
)
def test_a_process_that_dies_is_a_line(code: str, words: str, request_: Request) -> None:
    found = process([sys.executable, "-c", code], request_)
    assert found == Measured(f"its process ended with {words}")


def test_a_request_may_be_long(request_: Request) -> None:
    code = "import json, sys; print(json.dumps({'outputs': len(json.load(sys.stdin)['feeds'])}))"
    many = replace(request_, feeds=[f"/a/place/of/some/length/{number}" for number in range(10_000)])
    assert process([sys.executable, "-c", code], many).outputs == 10_000


def test_a_process_that_does_not_end_or_start_is_a_line(
    request_: Request, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runtime, "LIMIT", 0.3)
    found = process([sys.executable, "-c", "import time; time.sleep(60)"], request_)
    assert found.failed == "it took longer than 0 minutes"
    assert "does not start: No such file" in process(["/no/such/program"], request_).failed


def test_operators_of_a_profile_are_nodes_and_not_runs() -> None:
    def event(name: str, kind: str, index: str) -> dict[str, Any]:
        return {"cat": "Node", "name": name, "args": {"op_name": kind, "node_index": index}}

    profile: list[dict[str, Any]] = [
        {"cat": "Session", "name": "model_run", "args": {}},
        event("a_kernel_time", "MatMulNBits", "1"),
        event("a_kernel_time", "MatMulNBits", "1"),  # in a loop
        event("_kernel_time", "MatMulNBits", "2"),
        event("_kernel_time", "Add", "3"),
        event("a_fence_before", "MatMulNBits", "1"),
    ]
    assert operators_of(profile) == {"Add": 1, "MatMulNBits": 2}


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            "Exception from src/inference/core.cpp:84:\nCheck 'false' failed at a.cpp:151:\n"
            "FrontEnd API failed with OpConversionFailure:\nModel wasn't fully converted.\nSummary:\n"
            "-- No conversion rule found for operations: muquant.Decode\n\n",
            "No conversion rule found for operations: muquant.Decode",
        ),
        ("Exception from src/core.cpp:84:\nThe file is not there\nmore", "The file is not there"),
        ("Exception from src/core.cpp:84:", "Exception from src/core.cpp:84:"),
    ],
)
def test_openvino_says_what_it_means_and_not_where_it_was_raised(text: str, line: str) -> None:
    assert OpenVino().reason(RuntimeError(text)) == line
