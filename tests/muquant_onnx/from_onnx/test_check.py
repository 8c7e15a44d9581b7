"""`compress_onnx` says how a file answers before and after, on samples or on inputs that it makes up."""

import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from muquant import AnswersCheck, AnswersWarning, InputError, MuLawSpec
from muquant_onnx import CompressReport, compress_onnx, load_session, plan_onnx
from muquant_onnx.from_onnx import check
from muquant_onnx.from_onnx.made_up import made_up, whole_inputs
from muquant_onnx.from_onnx.read import read_graph

FLOAT, INT = TensorProto.FLOAT, TensorProto.INT64


def normal(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


Node = tuple[str, str, str, dict[str, Any]]
"""Operator, names of inputs, names of outputs, attributes."""


def model(
    nodes: list[Node],
    inputs: dict[str, tuple[int, list[Any]]],
    outputs: dict[str, int],
    tensors: dict[str, NDArray[Any]],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        [helper.make_node(op, given.split(), made.split(), **more) for op, given, made, more in nodes],
        "g",
        [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
        [helper.make_tensor_value_info(name, kind, None) for name, kind in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in tensors.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def dense(x: list[Any]) -> onnx.ModelProto:
    nodes: list[Node] = [("MatMul", "x w", "h", {}), ("Relu", "h", "r", {}), ("MatMul", "r v", "y", {})]
    return model(nodes, {"x": (FLOAT, x)}, {"y": FLOAT}, {"w": normal(0, 16, 32), "v": normal(1, 32, 10)})


def save(proto: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(proto.SerializeToString())
    return path


def compressed(source: Any, folder: Path, spec: MuLawSpec | None = None, **options: Any) -> CompressReport:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return compress_onnx(source, folder / "small.onnx", spec, **options)


def checked(*arguments: Any, **options: Any) -> AnswersCheck:
    answers = compressed(*arguments, **options).answers
    assert answers is not None
    return answers


def run(path: Path, feed: dict[str, NDArray[Any]]) -> list[Any]:
    outputs: list[Any] = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feed)
    return outputs


@pytest.mark.parametrize("batch", ["N", 4])
def test_figures_on_held_out_samples_are_those_of_plain_sessions(batch: Any, tmp_path: Path) -> None:
    source, samples = save(dense([batch, 16]), tmp_path), normal(2, 64, 16)
    answers = checked(source, tmp_path, calibration=torch.from_numpy(samples))
    assert (answers.inputs, answers.count) == ("held-out samples", 16)
    pairs = [
        [run(path, {"x": samples[3::4][start : start + 4]})[0] for start in range(0, 16, 4)]
        for path in (source, tmp_path / "small.onnx")
    ]
    exact, found = (np.concatenate(each).astype(np.float64) for each in pairs)
    assert answers.agreement == (exact.argmax(-1) == found.argmax(-1)).mean()
    ratio = 10 * np.log10((exact**2).sum() / ((found - exact) ** 2).sum())
    assert answers.sqnr == pytest.approx(ratio, abs=0.2)  # kernels round activations by batches


def test_without_samples_it_is_on_synthetic_inputs(tmp_path: Path) -> None:
    source = save(dense(["N", 16]), tmp_path)
    answers = checked(source, tmp_path)
    assert (answers.inputs, answers.count, len(answers.outputs)) == ("synthetic inputs", 8, 1)
    assert "random numbers are not your data" in answers.words
    assert answers.sqnr is not None
    eight = checked(source, tmp_path, MuLawSpec(8))
    assert eight.sqnr is not None
    assert answers.sqnr < 25 < 35 < eight.sqnr
    assert compressed(source, tmp_path, check=False).answers is None


def test_a_file_that_is_replaced_is_checked_too(tmp_path: Path) -> None:
    source = save(dense(["N", 16]), tmp_path)
    expected = checked(source, tmp_path)
    assert checked(source.read_bytes(), tmp_path) == expected
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert compress_onnx(source, source).answers == expected


def test_a_warning_where_answers_are_no_longer_alike(tmp_path: Path) -> None:
    source = save(dense(["N", 16]), tmp_path)
    with pytest.warns(AnswersWarning, match=r"y: .* wanted 10.*8 synthetic inputs.*Three ways out") as seen:
        compress_onnx(source, tmp_path / "small.onnx", MuLawSpec(2), synthetic=False)
    assert seen[0].filename == __file__


def test_plans_do_not_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("muquant_onnx.from_onnx.compress.ask_file", fail)
    samples = torch.from_numpy(normal(2, 16, 16))
    assert plan_onnx(save(dense(["N", 16]), tmp_path), max_drop=50, calibration=samples).drop is not None


def test_memory_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(available=20_000)
    monkeypatch.setattr("psutil.virtual_memory", lambda: memory)
    answers = checked(save(dense(["N", 16]), tmp_path), tmp_path)
    assert answers.not_checked.startswith("onnxruntime may need 2")
    assert answers.not_checked.endswith("of memory to run both, and 20.00 kB are free")


def test_what_runs_on_nothing_that_is_made_up(tmp_path: Path) -> None:
    nodes: list[Node] = [("StringNormalizer", "text", "t", {}), ("MatMul", "x w", "y", {})]
    inputs: dict[str, tuple[int, list[Any]]] = {"text": (TensorProto.STRING, ["N"]), "x": (FLOAT, ["N", 16])}
    proto = model(nodes, inputs, {"y": FLOAT, "t": TensorProto.STRING}, {"w": normal(0, 16, 32)})
    answers = checked(save(proto, tmp_path), tmp_path)
    assert answers.not_checked == "the model runs on none of the synthetic inputs; give samples"


def test_outputs_of_texts_sequences_and_maps(tmp_path: Path) -> None:
    nodes: list[Node] = [
        ("MatMul", "x w", "y", {}),
        ("SequenceConstruct", "y x", "s", {}),
        ("ArgMax", "y", "m", {"axis": 1}),
        ("Cast", "m", "t", {"to": TensorProto.STRING}),
    ]
    proto = model(
        nodes,
        {"x": (FLOAT, ["N", 16])},
        {"y": FLOAT, "m": INT, "t": TensorProto.STRING},
        {"w": normal(0, 16, 8)},
    )
    proto.graph.output.append(helper.make_tensor_sequence_value_info("s", FLOAT, None))
    answers = checked(save(proto, tmp_path), tmp_path)
    names = [(each.name, each.sqnr is None, each.agreement is None) for each in answers.outputs]
    assert names == [("y", 0, 0), ("m", 1, 0), ("t", 1, 0), ("s.0", 0, 0), ("s.1", 0, 0)]
    y, m, t, _, x = answers.outputs
    assert y.agreement == m.agreement == t.agreement
    assert x.sqnr == np.inf


def test_random_operators_are_told(tmp_path: Path) -> None:
    nodes: list[Node] = [("MatMul", "x w", "h", {}), ("RandomNormalLike", "h", "y", {})]
    proto = model(nodes, {"x": (FLOAT, ["N", 16])}, {"y": FLOAT}, {"w": normal(0, 16, 8)})
    answers = checked(save(proto, tmp_path), tmp_path)
    assert answers.not_checked == "the model answers the same inputs differently each time"


def test_a_compressed_file_that_does_not_run_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = save(dense(["N", 16]), tmp_path)

    def open_float(path: Path) -> Any:
        if path == source:
            return load_session(path)
        raise InputError("no kernel")

    monkeypatch.setattr(check, "load_session", open_float)
    with pytest.raises(InputError, match=r"small\.onnx was written, .* does not run it .* no kernel"):
        compress_onnx(source, tmp_path / "small.onnx")


def feed_of(proto: onnx.ModelProto, folder: Path) -> dict[str, NDArray[Any]]:
    """What is made up for a model."""
    path = save(proto, folder)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    ((feed, _),) = made_up(session, 1, whole_inputs(read_graph(path).model.graph))
    return dict(feed)


def test_token_ids_reach_all_of_their_table_and_masks_are_ones(tmp_path: Path) -> None:
    nodes: list[Node] = [
        ("Cast", "ids", "i", {"to": TensorProto.INT32}),
        ("Gather", "table i", "e", {}),
        ("Gather", "kinds type", "k", {}),
        ("Add", "e k", "a", {}),
        ("Cast", "attention_mask", "f", {"to": FLOAT}),
        ("Unsqueeze", "f last", "u", {}),
        ("Mul", "a u", "y", {}),
    ]
    size = ["batch", "sequence"]
    proto = model(
        nodes,
        {"ids": (INT, size), "type": (INT, size), "attention_mask": (INT, size)},
        {"y": FLOAT},
        {"table": normal(0, 500, 8), "kinds": normal(1, 3, 8), "last": np.array([2])},
    )
    feed = feed_of(proto, tmp_path)
    assert {each.shape for each in feed.values()} == {(2, 32)}
    assert 400 < feed["ids"].max() < 500
    assert feed["type"].max() == 2
    assert (feed["attention_mask"] == 1).all()
    assert checked(save(proto, tmp_path), tmp_path).sqnr is not None


def test_sizes_by_name_and_in_sums(tmp_path: Path) -> None:
    proto = model(
        [("MatMul", "x w", "h", {}), ("Concat", "past h", "c", {"axis": 1}), ("Add", "c bias", "y", {})],
        {
            "x": (FLOAT, ["batch", "sequence", 8]),
            "past": (FLOAT, ["batch", "past", 16]),
            "bias": (FLOAT, ["batch", "past + sequence", 1]),
        },
        {"y": FLOAT},
        {"w": normal(0, 8, 16)},
    )
    shapes = {name: array.shape for name, array in feed_of(proto, tmp_path).items()}
    assert shapes == {"x": (2, 32, 8), "past": (2, 32, 16), "bias": (2, 64, 1)}


def test_a_state_and_a_sample_rate(tmp_path: Path) -> None:
    """As of a detector of speech: the batch is the state's second axis, and branches ask for the rate."""
    proto = model(
        [
            ("Equal", "rate fast", "is_fast", {}),
            ("Where", "is_fast one zero", "scale", {}),
            ("MatMul", "x w", "h", {}),
            ("Add", "h state", "s", {}),
            ("Mul", "s scale", "y", {}),
        ],
        {"x": (FLOAT, [None, 16]), "state": (FLOAT, [3, None, 8]), "rate": (INT, [])},
        {"y": FLOAT},
        {
            "w": normal(0, 16, 8),
            "fast": np.array(16000),
            "one": np.ones((), np.float32),
            "zero": np.zeros((), np.float32),
        },
    )
    feed = feed_of(proto, tmp_path)
    assert {name: array.shape for name, array in feed.items()} == {
        "x": (2, 16),
        "state": (3, 2, 8),
        "rate": (),
    }
    assert feed["rate"] == 16000


def test_pictures_and_sizes_that_a_model_insists_on(tmp_path: Path) -> None:
    nodes: list[Node] = [
        ("Conv", "x k", "h", {"strides": [32, 32]}),
        ("GlobalAveragePool", "h", "g", {}),
        ("Flatten", "g", "f", {}),
        ("MatMul", "f w", "y", {}),
    ]
    tensors = {"k": normal(0, 8, 3, 32, 32), "w": normal(1, 8, 4)}
    pictures = model(nodes, {"x": (FLOAT, [None, 3, "?", "?"])}, {"y": FLOAT}, tensors)
    assert feed_of(pictures, tmp_path)["x"].shape == (2, 3, 160, 160)
    nodes = [("Reshape", "x rows", "h", {}), ("MatMul", "h w", "y", {})]
    rows = {"rows": np.array([1, 16]), "w": normal(1, 16, 4)}
    only_one = model(nodes, {"x": (FLOAT, ["n", 16])}, {"y": FLOAT}, rows)
    assert feed_of(only_one, tmp_path)["x"].shape == (1, 16)
