"""Samples for graphs: their batches, states, scalars and types, each run as onnxruntime takes them."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch.utils.data import DataLoader, TensorDataset

from muquant import InputError
from muquant.compression.calibration import read_samples
from muquant.compression.calibration.taken import taken_by
from muquant_onnx import compress_onnx, plan_onnx
from muquant_onnx.from_onnx.feeds import Feeds, graph_arguments
from muquant_onnx.from_onnx.read import read_graph

Array = NDArray[Any]
Sizes = list[Any]
FLOAT, HALF, INT64, INT32 = TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.INT64, TensorProto.INT32


def numbers(seed: int, *shape: int) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


X = numbers(1, 64, 12).cumsum(1)


def save(
    path: Path,
    nodes: list[Any],
    inputs: dict[str, tuple[int, Sizes]],
    outputs: dict[str, Sizes],
    **weights: Array,
) -> Path:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, *each) for name, each in inputs.items()],
        [helper.make_tensor_value_info(name, FLOAT, sizes) for name, sizes in outputs.items()],
        [numpy_helper.from_array(value, name) for name, value in weights.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def plain(path: Path, *sizes: Any, kind: int = FLOAT) -> Path:
    """x [N, 12] -> y [N, 9]."""
    nodes = [helper.make_node("Cast", ["x"], ["f"], to=FLOAT), helper.make_node("MatMul", ["f", "w"], ["y"])]
    return save(path, nodes, {"x": (kind, list(sizes))}, {"y": [None] * len(sizes)}, w=numbers(0, 12, 9))


def cell(path: Path, batch: Any, state: Sizes, rate: Sizes | None = None, name: str = "state") -> Path:
    """A detector with a state [2, N, 4] that it returns, and a sample rate that it adds."""
    nodes = [
        helper.make_node("Gather", [name, "zero"], ["last"], axis=0),
        helper.make_node("Concat", ["x", "last"], ["all"], axis=1),
        helper.make_node("Cast", ["rate"], ["r"], to=FLOAT),
        helper.make_node("MatMul", ["all", "w"], ["z"]),
        helper.make_node("Add", ["z", "r"], ["y"]),
        helper.make_node("Identity", [name], ["next"]),
    ]
    return save(
        path,
        nodes,
        {"x": (FLOAT, [batch, 12]), name: (FLOAT, state), "rate": (INT64, [] if rate is None else rate)},
        {"y": [None, 9], "next": [None, None, None]},
        w=numbers(0, 16, 9),
        zero=np.array(0),
    )


def feeds(path: Path, calibration: Any) -> Feeds:
    graph = read_graph(path).model.graph
    return Feeds.of(graph, taken_by(read_samples(calibration), graph_arguments(graph)), path)


def rows(found: Feeds, name: str = "x") -> Array:
    """The samples that are run, in their order, without those that fill batches up."""
    return np.concatenate([batch.feed[name][: batch.count] for batch in found.batches])


def stream() -> Iterator[Array]:
    yield from np.split(X, 8)


FORMS: dict[str, Callable[[], Any]] = {
    "array": lambda: X,
    "by name": lambda: {"x": X},
    "with labels": lambda: (X, np.arange(64)),
    "list of arrays": lambda: np.split(X, 8),
    "single samples": lambda: list(X),
    "single samples by name": lambda: [{"x": x} for x in X],
    "different sizes": lambda: [X[:3], X[3:20], X[20:21], X[21:]],
    "generator": stream,
    "loader": lambda: DataLoader(TensorDataset(torch.from_numpy(X), torch.arange(64)), batch_size=10),
    "data set": lambda: TensorDataset(torch.from_numpy(X), torch.arange(64)),
    "double": lambda: X.astype(np.float64),
}


@pytest.mark.parametrize("batch", ["n", None, -1, 1, 5, 64, 100])
@pytest.mark.parametrize("form", FORMS)
def test_all_forms_are_run_in_batches_that_the_graph_takes(form: str, batch: Any, tmp_path: Path) -> None:
    path = plain(tmp_path / "model.onnx", batch, 12)
    found = feeds(path, FORMS[form]())
    np.testing.assert_array_equal(rows(found), X)
    if isinstance(batch, int) and batch > 0:
        assert {len(each.feed["x"]) for each in found.batches} == {batch}
    outputs = [output for (output,) in found.run(path)]
    np.testing.assert_allclose(np.concatenate(outputs), X @ numbers(0, 12, 9), rtol=1e-5, atol=1e-5)
    report = compress_onnx(path, tmp_path / "small.onnx", calibration=FORMS[form]())
    (weight,) = report.weights
    assert weight.output_sqnr is not None
    assert report.answers is not None
    assert (report.answers.inputs, 0 < report.answers.count < 32) == ("held-out samples", True)
    assert report.answers.sqnr == pytest.approx(weight.output_sqnr, abs=0.5)  # it is the graph's only one
    plan = plan_onnx(path, max_drop=50, calibration=FORMS[form]())
    assert plan.drop is not None
    assert 0 < plan.drop.answers < 32


def test_a_graph_without_batches_is_run_by_samples(tmp_path: Path) -> None:
    path = plain(tmp_path / "model.onnx", "places", 12)
    sounds = X.reshape(8, 8, 12)
    for calibration in (sounds, {"x": sounds}, list(sounds)):
        assert [batch.feed["x"].shape for batch in feeds(path, calibration).batches] == [(8, 12)] * 8


def test_batches_of_different_lengths_are_run_as_they_are(tmp_path: Path) -> None:
    path = plain(tmp_path / "model.onnx", "n", "length", 12)
    parts = [numbers(place, 2, 3 + place, 12) for place in range(9)]
    assert [batch.feed["x"].shape[1] for batch in feeds(path, parts).batches] == list(range(3, 12))
    (weight,) = compress_onnx(path, tmp_path / "small.onnx", calibration=parts).weights
    assert weight.output_sqnr is not None


STATE = numbers(2, 2, 64, 4)
ONE_BY_ONE = [{"x": X[i : i + 1], "state": STATE[:, i : i + 1], "rate": 16000} for i in range(64)]


@pytest.mark.parametrize(
    ("batch", "state", "rate"),
    [
        ("n", [2, "n", 4], None),
        (None, [2, None, 4], None),
        (1, [2, 1, 4], None),
        (6, [2, 6, 4], [1]),
        ("n", [2, "n", 4], [1]),
    ],
    ids=str,
)
def test_states_and_scalars(batch: Any, state: Sizes, rate: Sizes | None, tmp_path: Path) -> None:
    path = cell(tmp_path / "model.onnx", batch, state, rate)
    number = np.array(16000) if rate is None else np.array([16000])
    found = feeds(path, {"x": X, "state": STATE, "rate": number})
    expected = np.concatenate((X, STATE[0]), 1) @ numbers(0, 16, 9) + 16000
    outputs = np.concatenate([outputs[0] for outputs in found.run(path)])
    np.testing.assert_allclose(outputs, expected, rtol=1e-5)
    assert found.zeros == ()
    without = feeds(path, {"rate": number, "x": X})
    assert without.zeros == ("state",)
    outputs = np.concatenate([outputs[0] for outputs in without.run(path)])
    np.testing.assert_allclose(outputs, X @ numbers(0, 16, 9)[:12] + 16000, rtol=1e-5)
    report = compress_onnx(path, tmp_path / "small.onnx", calibration={"x": X, "rate": number})
    assert report.zero_inputs == ("state",)
    assert report.weights[0].output_sqnr is not None
    listed = [{**each, "rate": number} for each in ONE_BY_ONE]
    outputs = np.concatenate([outputs[0] for outputs in feeds(path, listed).run(path)])
    np.testing.assert_allclose(outputs, expected, rtol=1e-5)


def test_a_cache_that_samples_lack_is_empty(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Concat", ["past.0.key", "x"], ["present"], axis=2),
        helper.make_node("MatMul", ["present", "w"], ["y"]),
    ]
    path = save(
        tmp_path / "model.onnx",
        nodes,
        {"x": (FLOAT, ["n", 2, "length", 12]), "past.0.key": (FLOAT, ["n", 2, "past_length", 12])},
        {"y": [None] * 4, "present": [None] * 4},
        w=numbers(0, 12, 9),
    )
    found = feeds(path, [numbers(place, 1, 2, 3, 12) for place in range(8)])
    assert found.zeros == ("past.0.key",)
    assert [batch.feed["past.0.key"].shape for batch in found.batches] == [(1, 2, 0, 12)] * 8


@pytest.mark.parametrize(
    ("kind", "given", "kept"),
    [
        (FLOAT, np.float64, np.float32),
        (FLOAT, np.float16, np.float32),
        (HALF, np.float32, np.float16),
        (INT64, np.int32, np.int64),
        (INT32, np.int64, np.int32),
        (TensorProto.UINT8, np.uint8, np.uint8),
        (TensorProto.BOOL, np.bool_, np.bool_),
    ],
    ids=str,
)
def test_types(kind: int, given: Any, kept: Any, tmp_path: Path) -> None:
    path = plain(tmp_path / "model.onnx", "n", 12, kind=kind)
    found = rows(feeds(path, np.abs(X).astype(given)))
    assert found.dtype == kept
    np.testing.assert_array_equal(found, np.abs(X).astype(given).astype(kept))


def refused(path: Path, calibration: Any) -> str:
    with pytest.raises(InputError) as caught:
        compress_onnx(path, path.with_name("small.onnx"), calibration=calibration)
    assert not path.with_name("small.onnx").exists()
    return str(caught.value)


def test_types_that_lose_something(tmp_path: Path) -> None:
    half = plain(tmp_path / "half.onnx", "n", 12, kind=HALF)
    assert "x is float32, expected float16, which does not hold 70000.0; scale it" in refused(
        half, X * 0 + 7e4
    )
    small = plain(tmp_path / "small-numbers.onnx", "n", 12, kind=INT32)
    assert "which does not hold 1099511627776" in refused(small, np.full((8, 12), 2**40))
    for given, kind in ((np.uint8, FLOAT), (np.float32, INT64), (np.int64, TensorProto.BOOL)):
        path = plain(tmp_path / "other.onnx", "n", 12, kind=kind)
        assert f"input x is {np.dtype(given)}, expected" in refused(path, np.abs(X).astype(given))


def test_what_is_missing_is_named_with_what_to_do(tmp_path: Path) -> None:
    path = cell(tmp_path / "model.onnx", "n", [2, "n", 4])
    message = refused(path, {"x": X, "state": STATE})
    assert "input rate (int64, a scalar) is missing; give it by name, a number beside the samples" in message
    other = cell(tmp_path / "image.onnx", "n", [2, "n", 4], name="image")
    message = refused(other, {"x": X, "rate": 16000})
    assert "input image (float, ['2', 'n', '4']) is missing" in message
    unknown = cell(tmp_path / "open.onnx", "n", [2, "n", "width"])
    assert "its size cannot be told; give it by name" in refused(unknown, {"x": X, "rate": 16000})


def test_inputs_that_take_different_numbers_of_samples(tmp_path: Path) -> None:
    path = cell(tmp_path / "model.onnx", 4, [2, 8, 4])
    message = refused(path, {"x": X, "state": STATE, "rate": 16000})
    assert "its inputs take different numbers of samples, 4 of x, 8 of state; expected one" in message


def test_what_overflows_inside_names_the_layer(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "first"], ["h"]),
        helper.make_node("Mul", ["h", "h"], ["hh"]),
        helper.make_node("MatMul", ["hh", "second"], ["y"]),
    ]
    path = save(
        tmp_path / "model.onnx",
        nodes,
        {"x": (FLOAT, ["n", 12])},
        {},
        first=numbers(0, 12, 12) * 1e20,
        second=numbers(1, 12, 9),
    )
    model = onnx.load(path)
    model.graph.output.append(helper.make_tensor_value_info("y", FLOAT, [None, 9]))
    onnx.save(model, path)
    message = refused(path, X)
    assert message.startswith(
        "second: calibration: expected finite inputs of its layer, found NaN or infinity"
    )
