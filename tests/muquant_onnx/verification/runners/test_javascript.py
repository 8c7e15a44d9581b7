"""Runtimes of JavaScript: real ones where they are installed, and one that is made up wherever Node.js is."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import load_file, save_file

from muquant_onnx.verification.runners import RUNTIMES, chromium
from muquant_onnx.verification.runners.javascript import find_package
from muquant_onnx.verification.runners.onnxruntime_node import OnnxRuntimeNode
from muquant_onnx.verification.runners.runtime import Request, Way

REAL = ["onnxruntime-node", "onnxruntime-web", "chromium"]
TYPES = ["bool", "float16", "float32", "float64"]
TYPES += [f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)]

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="needs Node.js")
needs_chromium = pytest.mark.skipif(chromium._browser() is None, reason="needs Chromium")

FAKE = """
class Tensor { constructor(type, data, dims) { Object.assign(this, { type, data, dims }); } }
const create = async (model, options) => {
  if (String(model).includes("refused")) throw new Error("refused\\nfor no reason");
  const outputNames = options.externalData?.map(({ path }) => path) ?? ["text", "b", "a"];
  return { outputNames, run: async (feeds) => {
    if (feeds.bad) throw new Error("bad inputs");
    return { text: { type: "string", data: [], dims: [0] }, ...feeds };
  } };
};
"""
"""A package whose models answer their inputs."""


def package(folder: Path, name: str, files: dict[str, str]) -> Path:
    """Write a package of npm, and return it."""
    root = folder / "node_modules" / name
    for path, text in {"package.json": '{"version": "7.8.9", "main": "index.js"}', **files}.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


@pytest.fixture
def request_(tmp_path: Path) -> Request:
    """Asks for what it gives: tensors of every type, in a folder of an uncommon name."""
    tmp_path = tmp_path / "50% of it, é #1?"
    tmp_path.mkdir()
    random = np.random.default_rng(0)
    a = {f"a-{name}": random.integers(0, 2, (2, 3)).astype(name) for name in TYPES}
    save_file({"a": np.array([[1.5, -2]], np.float32), "b": np.array(7, np.int64)}, tmp_path / "one")
    save_file({"a": a["a-float16"], "b": a["a-bool"]}, tmp_path / "two")
    save_file({"bad": np.zeros(1)}, tmp_path / "bad")
    for number, name in enumerate(TYPES):
        save_file({"a": a[f"a-{name}"], "b": a[f"a-{TYPES[number - 1]}"]}, tmp_path / name)
    for name in ("model", "empty"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "out").mkdir()
    return Request(
        path=str(tmp_path / "model"),
        empty=str(tmp_path / "empty"),
        way=Way(),
        timed={1: str(tmp_path / "one"), 32: str(tmp_path / "bad")},
        feeds=[str(tmp_path / name) for name in ("one", "two", *TYPES)],
        outputs=str(tmp_path / "out"),
        seconds=0.0,
    )


def assert_answered(request: Request) -> None:
    """The answers are the inputs: the second and third output, in the order of the outputs."""
    for number, feed in enumerate(request.feeds):
        given, found = load_file(feed), load_file(Path(request.outputs, f"{number}.safetensors"))
        assert set(found) == {"1", "2"}
        for place, name in (("1", "b"), ("2", "a")):
            assert found[place].dtype == given[name].dtype
            assert found[place].shape == given[name].shape
            assert found[place].tobytes() == given[name].tobytes()


@needs_node
def test_tensors_of_every_type_go_to_node_and_back(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = FAKE + "module.exports = { Tensor, InferenceSession: { create } };"
    package(tmp_path, "onnxruntime-node", {"index.js": text})
    (tmp_path / "below").mkdir()
    monkeypatch.chdir(tmp_path / "below")
    fake = OnnxRuntimeNode()
    assert (fake.missing(), fake.version()) == ("", "7.8.9")
    found = fake.measure(request_)
    assert (found.failed, found.outputs, set(found.latency)) == ("", 3, {1})
    assert found.peak is not None
    assert found.loaded is not None
    assert found.peak >= found.loaded
    assert_answered(request_)
    failed = fake.measure(replace(request_, path=str(tmp_path / "refused")))
    assert failed.failed == "refused"
    failed = fake.measure(replace(request_, feeds=[request_.timed[32]]))
    assert failed.failed == "bad inputs"


@needs_node
def test_a_package_that_does_not_load_is_a_line(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "onnxruntime-node", {"index.js": "throw new Error('a library is missing');"})
    monkeypatch.chdir(tmp_path)
    assert OnnxRuntimeNode().measure(request_).failed.endswith("Error: a library is missing")


def test_packages_are_found_here_above_and_on_the_path(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    above = package(tmp_path, "thing", {})
    elsewhere = package(tmp_path / "elsewhere", "other", {})
    here = tmp_path / "a" / "b"
    here.mkdir(parents=True)
    monkeypatch.chdir(here)
    monkeypatch.delenv("NODE_PATH", raising=False)
    assert find_package("thing") == above
    assert find_package("other") is None
    monkeypatch.setenv("NODE_PATH", str(elsewhere.parent))
    assert find_package("other") == elsewhere


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("NODE_PATH", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}")
    for name, wanted in (("onnxruntime-node", "onnxruntime-node"), ("chromium", "onnxruntime-web")):
        assert (
            RUNTIMES[name].missing().startswith(f"not installed; npm install {wanted}, here or in a folder")
        )
    monkeypatch.setattr(shutil, "which", lambda _: None)
    assert RUNTIMES["onnxruntime-web"].missing() == "needs Node.js; install nodejs"
    assert RUNTIMES["chromium"].missing() == "needs Chromium; install chromium"


@needs_chromium
@pytest.mark.slow
def test_tensors_of_every_type_go_to_a_browser_and_back(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        f"{FAKE}export const env = {{ wasm: {{}} }}, InferenceSession = {{ create }};\nexport {{ Tensor }};"
    )
    text = text.replace("?.map(({ path }) => path) ?? ", ".length ? [] : ")
    package(tmp_path, "onnxruntime-web", {"dist/ort.wasm.min.mjs": text})
    monkeypatch.chdir(tmp_path)
    found = RUNTIMES["chromium"].measure(request_)
    assert (found.failed, found.outputs, set(found.latency)) == ("", 3, {1})
    assert_answered(request_)


@needs_chromium
@pytest.mark.slow
def test_a_page_that_finds_no_package_is_a_line(
    request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "onnxruntime-web", {})
    monkeypatch.chdir(tmp_path)
    assert "Failed to fetch" in RUNTIMES["chromium"].measure(request_).failed


@needs_chromium
@pytest.mark.slow
@pytest.mark.parametrize(
    ("text", "limit", "words"),
    [
        ("await new Promise(() => {});", 1.0, "the page took longer than 1 s"),
        ("throw new Error('why');", 30.0, "why"),
    ],
)
def test_a_page_that_does_not_end_or_throws_is_a_line(
    text: str, limit: float, words: str, request_: Request, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package(tmp_path, "onnxruntime-web", {"dist/ort.wasm.min.mjs": text})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(chromium, "LIMIT", limit)
    assert words in RUNTIMES["chromium"].measure(request_).failed


@pytest.mark.slow
@pytest.mark.parametrize("name", REAL)
def test_a_real_one_runs_a_file(name: str, tmp_path: Path) -> None:
    if RUNTIMES[name].missing():
        pytest.skip(f"{name}: {RUNTIMES[name].missing()}")
    values = [helper.make_tensor_value_info(each, TensorProto.FLOAT, ["n"]) for each in "xy"]
    for file, kind in (("empty", "Identity"), ("model", "Neg"), ("wrong", "Frobnicate")):
        graph = helper.make_graph([helper.make_node(kind, ["x"], ["y"])], "g", values[:1], values[1:])
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
        onnx.save(model, tmp_path / file)
    save_file({"x": np.array([1, 2, 3], np.float32)}, tmp_path / "feed")
    files = {key: str(tmp_path / key) for key in ("model", "empty", "feed")}
    request = Request(
        files["model"], files["empty"], Way(), {1: files["feed"]}, [files["feed"]], str(tmp_path)
    )
    found = RUNTIMES[name].measure(request)
    assert found.failed == ""
    assert found.seconds > 0
    assert set(found.latency) == {1}
    np.testing.assert_array_equal(load_file(tmp_path / "0.safetensors")["0"], [-1, -2, -3])
    failed = RUNTIMES[name].measure(replace(request, path=str(tmp_path / "wrong"))).failed
    assert "Frobnicate" in failed
    assert "\n" not in failed
