"""`compress --calibration`: samples from data sets and files, for models and for graphs."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import helper, numpy_helper

from muquant import compress, load
from muquant.data import load_dataset
from muquant.models.evaluation import evaluate
from muquant.quantization import quantize
from muquant.quantization.resume import FinishedWeights
from muquant.training import load_run

from ..conftest import fails, invoke, invoke_json

pytestmark = pytest.mark.slow


def images(count: int = 40) -> np.ndarray[Any, Any]:
    return load_dataset("digits", "train").inputs(slice(count)).numpy()


def test_a_run_compressed_by_its_data(run: Path, artifact: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.mq"
    document = invoke_json("compress", run, "-o", out, "--calibration", "digits", "--samples", 200)
    assert all(layer["output_sqnr"] > layer["nearest_output_sqnr"] for layer in document["layers"])
    assert {layer["rounding"] for layer in document["layers"]} <= {"compensated", "reconstructed"}
    assert any(layer["bias_corrected"] for layer in document["layers"])
    digits = load_dataset("digits", "test")
    assert evaluate(load(out).module, digits) >= evaluate(load(artifact).module, digits) - 0.02


def test_the_table_says_what_was_done(run: Path, tmp_path: Path) -> None:
    shown = invoke("compress", run, "-o", tmp_path / "model.mq", "--calibration", "digits", "--samples", 40)
    assert shown.exit_code == 0
    assert "Without samples" not in shown.stdout
    assert " to " in shown.stdout
    assert "bias" in shown.stdout


def test_without_samples_it_says_so(run: Path, tmp_path: Path) -> None:
    shown = invoke("compress", run, "-o", tmp_path / "model.mq")
    assert "Without samples codes are chosen by the weights alone. That costs accuracy" in shown.stdout


def test_what_is_compressed_without_the_samples_is_listed(tmp_path: Path) -> None:
    model, samples, out = tmp_path / "float.onnx", tmp_path / "ids.npy", tmp_path / "small.onnx"
    table, weight = (np.random.default_rng(0).standard_normal(shape) for shape in ((20, 8), (8, 5)))
    graph = helper.make_graph(
        [
            helper.make_node("Gather", ["table", "ids"], ["rows"]),
            helper.make_node("MatMul", ["rows", "w"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("ids", onnx.TensorProto.INT64, ["n", 4])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 4, 5])],
        [
            numpy_helper.from_array(table.astype(np.float32), "table"),
            numpy_helper.from_array(weight.astype(np.float32), "w"),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), model)
    np.save(samples, np.random.default_rng(1).integers(20, size=(32, 4)))
    because = "its rows are looked up, and multiply nothing"
    given = ("compress", model, "-o", out, "--calibration", samples)
    shown = invoke(*given)
    assert "Without samples, by the weights alone: 1" in shown.stdout
    assert because in " ".join(shown.stdout.split())
    found = {entry["name"]: entry["not_calibrated"] for entry in invoke_json(*given)["weights"]}
    assert found == {"table": because, "w": ""}


@pytest.mark.parametrize("kind", ["npy", "npz"])
def test_a_graph_compressed_by_arrays(kind: str, tmp_path: Path) -> None:
    model, out, samples = tmp_path / "float.onnx", tmp_path / "small.onnx", tmp_path / f"samples.{kind}"
    weight = np.random.default_rng(0).standard_normal((10, 64)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Flatten", ["pixels"], ["flat"]),
            helper.make_node("Gemm", ["flat", "w"], ["y"], transB=1),
        ],
        "g",
        [helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, ["n", 1, 8, 8])],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 10])],
        [numpy_helper.from_array(weight, "w")],
    )
    onnx.save(
        helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9),
        model,
    )
    if kind == "npy":
        np.save(samples, images())
    else:
        np.savez(samples, pixels=images())
    (layer,) = invoke_json("compress", model, "-o", out, "--calibration", samples)["weights"]
    assert layer["output_sqnr"] > layer["nearest_output_sqnr"] + 1
    assert layer["bias_corrected"]


def test_only_so_many_samples_are_taken(run: Path, tmp_path: Path) -> None:
    """Those, evenly over the file: with the others spoilt nothing changes."""
    spoilt = images(40)
    np.save(tmp_path / "few.npy", spoilt[::4])
    spoilt[np.arange(40) % 4 != 0] = np.nan
    np.save(tmp_path / "all.npy", spoilt)
    few, several = (
        invoke_json(
            "compress", run, "-o", tmp_path / "m.mq", "--calibration", tmp_path / name, "--samples", 10
        )["layers"]
        for name in ("few.npy", "all.npy")
    )
    assert few == several


def test_without_corrections_biases_stay(run: Path, tmp_path: Path) -> None:
    document = invoke_json(
        "compress",
        run,
        "-o",
        tmp_path / "m.mq",
        "--calibration",
        "digits",
        "--samples",
        40,
        "--no-corrections",
    )
    assert not any(layer["bias_corrected"] for layer in document["layers"])


def test_calibrations_that_cannot_be_used(run: Path, tmp_path: Path) -> None:
    def refused(samples: object) -> str:
        message = fails("compress", run, "-o", tmp_path / "model.mq", "--calibration", samples)
        assert not (tmp_path / "model.mq").exists()
        return message

    assert "cannot read" in refused(tmp_path / "none.npy")
    (tmp_path / "torn.npy").write_bytes(b"\x93NUMPY\x01")
    assert "holds no arrays of numbers" in refused(tmp_path / "torn.npy")
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    assert "holds no arrays of numbers" in refused(tmp_path / "pickled.npy")
    np.save(tmp_path / "few.npy", images(3))
    assert "at least 4 samples, found 3" in refused(tmp_path / "few.npy")
    np.save(tmp_path / "small.npy", images()[..., :4])
    assert "does not run on inputs of shape" in refused(tmp_path / "small.npy")
    np.savez(tmp_path / "named.npz", other=images())
    assert "does not run on inputs of shape" in refused(tmp_path / "named.npz")
    assert "data set" in refused("nowhere")
    message = fails("compress", run, "-o", tmp_path / "model.mq", "--rounding", "compensated")
    assert "give a calibration" in message


def test_an_interrupted_command_goes_on(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out, partial = tmp_path / "model.mq", tmp_path / "model.mq.partial"
    arguments = ("compress", run, "-o", out, "--calibration", "digits", "--samples", 40, "--flat")
    whole = invoke_json(*arguments)["layers"]
    before = load(out)
    out.unlink()
    assert not partial.exists()
    done: list[object] = []
    rounded = quantize._quantize

    def count(*given: Any, **named: Any) -> Any:
        if len(done) == 2:
            raise KeyboardInterrupt
        return unbroken(*given, **named)

    def unbroken(*given: Any, **named: Any) -> Any:
        done.append(given)
        return rounded(*given, **named)

    monkeypatch.setattr(quantize, "_quantize", count)
    stopped = invoke(*arguments)
    assert stopped.exit_code == 1
    assert "2 finished weights are kept" in stopped.stderr
    assert len(list(partial.iterdir())) == 2
    assert not out.exists()
    done.clear()
    monkeypatch.setattr(quantize, "_quantize", unbroken)
    assert invoke_json(*arguments, "--resume")["layers"] == whole
    assert len(done) == len(whole) - 2 + len(whole)  # all once more without samples, to be judged beside them
    for name, value in load(out).module.state_dict().items():
        torch.testing.assert_close(value, before.module.state_dict()[name], rtol=0, atol=0)
    assert not partial.exists()


def test_another_samples_finished_weights_are_not_taken(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.mq"
    kept = FinishedWeights(tmp_path / "model.mq.partial")
    model = load_run(run)
    digits = load_dataset("digits", "train")
    compress(model, calibration=digits.inputs(slice(40)), finished=kept)
    first = kept.count
    assert first > 1
    (kept.folder / "mine.txt").touch()
    invoke_json("compress", run, "-o", out, "--calibration", "digits", "--samples", 44, "--resume")
    assert [path.name for path in kept.folder.iterdir()] == ["mine.txt"]
    expected = compress(model, calibration=digits.inputs(torch.arange(44) * len(digits) // 44))
    for name, tensor in load(out).tensors.items():
        torch.testing.assert_close(tensor.codes, expected.tensors[name].codes, rtol=0, atol=0)


def test_a_damaged_finished_weight_is_named(run: Path, tmp_path: Path) -> None:
    arguments = ("compress", run, "-o", tmp_path / "model.mq", "--calibration", "digits", "--samples", 40)
    kept = FinishedWeights(tmp_path / "model.mq.partial")
    images = load_dataset("digits", "train")
    compress(load_run(run), calibration=images.inputs(torch.arange(40) * len(images) // 40), finished=kept)
    path = next(kept.folder.iterdir())
    path.write_bytes(path.read_bytes()[:-1])
    result = invoke(*arguments, "--resume")
    assert result.exit_code == 2
    assert path.name in result.stderr
    assert "damaged" in result.stderr
