"""`compress --calibration`: batches in a folder or from a function, arrays with states and scalars."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from ..conftest import fails, invoke_json

X: NDArray[Any] = np.random.default_rng(0).normal(size=(40, 12)).astype(np.float32)
STATE: NDArray[Any] = np.random.default_rng(1).normal(size=(2, 40, 12)).astype(np.float32)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """[n, 12] -> (x + the last layer's state) W times a rate."""
    monkeypatch.chdir(tmp_path)
    weight = np.random.default_rng(2).normal(size=(12, 9)).astype(np.float32)
    nodes = [
        helper.make_node("Gather", ["state", "last"], ["h"], axis=0),
        helper.make_node("Add", ["x", "h"], ["s"]),
        helper.make_node("MatMul", ["s", "w"], ["p"]),
        helper.make_node("Mul", ["p", "rate"], ["y"]),
        helper.make_node("Identity", ["state"], ["next"]),
    ]
    shapes: dict[str, list[Any]] = {"x": ["n", 12], "state": [2, "n", 12], "rate": []}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()],
        [
            helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 9]),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, [2, "n", 12]),
        ],
        [numpy_helper.from_array(weight, "w"), numpy_helper.from_array(np.array(1), "last")],
    )
    path = tmp_path / "model.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path


def compressed(model: Path, *options: object) -> tuple[float, int, list[str]]:
    """The SQNR of the layer's output, how many samples were answered, and which inputs were zero."""
    document = invoke_json("compress", model, "-o", model.with_name("small.onnx"), *options)
    (weight,) = document["weights"]
    return weight["output_sqnr"], document["answers"]["count"], document["zero_inputs"]


def batch(start: int, stop: int) -> dict[str, Any]:
    return {"x": X[start:stop], "state": STATE[:, start:stop], "rate": np.float32(3)}


def test_arrays_of_all_samples_beside_states_and_scalars(model: Path) -> None:
    np.savez("all.npz", **batch(0, 40))
    np.savez("few.npz", **batch(0, 20))
    sqnr, count, zero = compressed(model, "--calibration", "all.npz", "--min-sqnr", "8")
    assert (count, zero) == (10, [])
    assert compressed(model, "--calibration", "few.npz")[1] == 5
    assert compressed(model, "--calibration", "all.npz", "--samples", 20)[1] == 5
    np.savez("part.npz", x=X, rate=np.float32(3))
    other, _, zero = compressed(model, "--calibration", "part.npz")
    assert zero == ["state"]
    assert other != sqnr


def test_a_folder_of_batches(model: Path) -> None:
    Path("samples").mkdir()
    assert "samples has no .npy or .npz file; write one" in fails(
        "compress", model, "-o", "small.onnx", "--calibration", "samples"
    )
    for place, start in enumerate(range(0, 40, 8)):
        np.savez(f"samples/{place}.npz", **batch(start, start + 8))
    Path("samples/readme.txt").touch()
    assert compressed(model, "--calibration", "samples")[1:] == (8, [])
    assert compressed(model, "--calibration", "samples", "--max-drop", 50)[1:] == (8, [])
    Path("samples/5.npy").write_bytes(b"none")
    message = fails("compress", model, "-o", "other.onnx", "--calibration", "samples")
    assert "5.npy" in message
    assert not Path("other.onnx").exists()


def test_a_function_that_returns_batches(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("given_samples.py").write_text(
        "import numpy as np\n"
        "def batches():\n"
        "    for seed in range(100):\n"
        "        x = np.random.default_rng(seed).normal(size=(8, 12)).astype(np.float32)\n"
        "        yield {'x': x, 'rate': 3.0}\n"
        "def broken():\n"
        "    raise OSError('disk full')\n"
        "number = 7\n"
    )
    assert compressed(model, "--calibration", "given_samples:batches", "--samples", 64)[1:] == (16, ["state"])
    given = ("compress", model, "-o", "other.onnx", "--calibration")
    assert "given_samples:broken raised OSError: disk full" in fails(*given, "given_samples:broken")
    assert "expected a function that returns samples, found int" in fails(*given, "given_samples:number")
    assert not Path("other.onnx").exists()
