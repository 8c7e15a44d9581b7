"""Every command on a real model: what it writes, what it prints, and its document."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch

import muquant
from muquant.data import load_dataset
from muquant.models.evaluation import evaluate
from muquant.training import load_run
from muquant_cli.commands.demo import DEMO_CONFIG
from muquant_cli.group import COMMANDS
from muquant_onnx import export_float
from muquant_onnx.verification.runners import RUNTIMES
from muquant_onnx.verification.runners.runtime import Measured, Request, Runtime

from .conftest import TRAINING, fails, invoke, invoke_json

pytestmark = pytest.mark.slow


class FakeRuntime(Runtime):
    """One that is missing, or that finds what it is told."""

    def __init__(self, missing: str, found: Measured | None = None) -> None:
        self.line, self.found = missing, found

    def missing(self) -> str:
        return self.line

    def version(self) -> str:
        return "1.0"

    def measure(self, request: Request) -> Measured:
        assert self.found is not None
        return self.found


def test_train_keeps_a_run_and_reports_its_accuracy(run: Path) -> None:
    document = invoke_json("inspect", run)
    assert document["config"]["data"] == "digits"
    assert [epoch["epoch"] for epoch in document["history"]] == list(range(1, 9))
    assert document["test_accuracy"] == evaluate(load_run(run), load_dataset("digits", "test")) > 0.8


def test_train_resumes_a_finished_run_without_training_again(run: Path) -> None:
    before = (run / "model.safetensors").read_bytes()
    assert len(invoke_json("train", *TRAINING, "--out", run, "--resume")["history"]) == 8
    assert (run / "model.safetensors").read_bytes() == before


def test_compress_writes_what_the_library_computes(run: Path, artifact: Path) -> None:
    expected = muquant.compress(load_run(run))
    found = muquant.load(artifact)
    for name, quantized in expected.tensors.items():
        assert torch.equal(found.tensors[name].dequantize(), quantized.dequantize())


def test_compress_takes_every_option_of_the_format(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.mq"
    options = (
        "--bits",
        4,
        "--mu",
        2.5,
        "--domain",
        "mapped",
        "--granularity",
        "tensor",
        "--step-bits",
        32,
        "--levels",
        "mid-tread",
    )
    document = invoke_json("compress", run, "-o", out, *options, "--layers", "last:2", "--observer", "absmax")
    assert [(layer["name"], layer["bits"], layer["mu"]) for layer in document["layers"]] == [
        ("fc1.weight", 4, 2.5),
        ("fc2.weight", 4, 2.5),
    ]
    specs = {quantized.spec for quantized in muquant.load(out).tensors.values()}
    assert specs == {muquant.MuLawSpec(4, 2.5, "mapped", "tensor", "mid-tread", step_bits=32)}


def test_compress_takes_a_grid_and_the_file_is_run_in_4_bits(run: Path, tmp_path: Path) -> None:
    model, out = tmp_path / "model.mq", tmp_path / "model.onnx"
    invoke_json("compress", run, "-o", model, "--grid", "int4", "--bits", "3,conv1=8")
    grids = {name: tensor.spec.grid_name for name, tensor in muquant.load(model).tensors.items()}
    assert grids.pop("conv1.weight") == "int16"
    assert set(grids.values()) == {"int4"}
    document = invoke_json("export", model, "-o", out, "--policy", "int4")
    assert [use["form"] for use in document["served"]] == ["float", "float", "int4", "int4"]
    assert invoke_json("verify", model, out, "--limit", 50)["passed"]
    shown = invoke_json("inspect", out)
    assert shown["operators"]["MatMulNBits"] == 2
    assert shown["weights"]["fc1.weight"]["grid"] == "int4"


def test_compress_takes_widths_by_layer(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.mq"
    document = invoke_json("compress", run, "-o", out, "--bits", "3,fc.*=4,conv[1]{1,2}=8,fc2=5")
    assert [layer["bits"] for layer in document["layers"]] == [8, 3, 4, 5]
    assert [tensor.spec.bits for tensor in muquant.load(out).tensors.values()] == [8, 3, 4, 5]


def test_compress_chooses_by_sensitivity_and_says_why(run: Path, tmp_path: Path) -> None:
    options = ("--layers", "auto", "--domain", "mapped", "--mu", 16, "--bits", "3,fc1=3")
    document = invoke_json("compress", run, "-o", tmp_path / "model.mq", *options)
    assert [choice["name"] for choice in document["choices"]] == [
        "conv1.weight",
        "conv2.weight",
        "fc2.weight",
    ]
    taken = {layer["name"]: layer for layer in document["layers"]}
    for choice in document["choices"]:
        assert choice["taken"] == choice["trials"][-1]
        assert [trial["delta_norm"] <= 1 for trial in choice["trials"]].index(True) == len(
            choice["trials"]
        ) - 1
        assert choice["taken"]["domain"] == taken[choice["name"]]["domain"]
        assert choice["taken"]["delta_norm"] == taken[choice["name"]]["operator_norms"]["two"]
    text = invoke("compress", run, "-o", tmp_path / "model.mq", *options).stdout
    assert "because ||dW||_2 is" in text
    assert "at 3 bits mapped" in text


def test_mixed_widths_are_exported_and_verified(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    invoke_json("compress", run, "-o", tmp_path / "model.mq", "--bits", "3,conv1=8,fc2=5")
    invoke_json("export", tmp_path / "model.mq", "-o", out)
    assert invoke_json("verify", tmp_path / "model.mq", out, "--limit", 50)["passed"]
    weights = invoke_json("inspect", out)["weights"]
    assert [weight["bits"] for weight in weights.values()] == [8, 3, 3, 5]


def test_compress_exports_at_once(run: Path, exported: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    document = invoke_json("compress", run, "-o", out)
    assert document["nbytes"] == out.stat().st_size
    assert out.read_bytes() == exported.read_bytes()


@pytest.mark.parametrize("policy", ["float", "int8", "auto"])
def test_export_and_verify_agree_with_pytorch(policy: str, artifact: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.onnx"
    document = invoke_json("export", artifact, "-o", out, "--policy", policy)
    assert {use["form"] for use in document["served"]} == (
        {"float", "int8"} if policy == "int8" else {"float"}
    )
    images = load_dataset("digits", "test").inputs()
    session = ort.InferenceSession(str(out), providers=["CPUExecutionProvider"])
    logits = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
    with torch.inference_mode():
        expected = muquant.load(artifact).module(images).numpy()
    tolerance = 2e-2 if policy == "int8" else 1e-5
    np.testing.assert_allclose(logits, expected, atol=tolerance * np.abs(expected).max(), rtol=0)
    report = invoke_json("verify", artifact, out, "--data", "digits")
    assert report["passed"]
    assert report["count"] == len(images)


def test_verify_says_what_loading_costs_and_what_is_missing(
    artifact: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = {name: FakeRuntime("not installed; pip install it") for name in RUNTIMES if name != "onnxruntime"}
    for name, runtime in gone.items():
        monkeypatch.setitem(RUNTIMES, name, runtime)
    document = invoke_json("verify", artifact, exported, "--limit", 8, "--runtime", "all")
    assert set(document["missing"]) == set(gone)
    ways = [(check["setting"], check["policy"]) for check in document["runtimes"]]
    assert ways == [
        ("default", None),
        ("accuracy-1", None),
        ("unoptimized", None),
        *(("default", policy) for policy in ("float", "int8", "auto", "packed")),
    ]
    (beside,) = document["floats"]
    for check in document["runtimes"]:
        assert check["cost"]["nbytes"] == exported.stat().st_size < beside["cost"]["nbytes"]
        assert check["cost"]["peak"] >= check["cost"]["loaded"]
        assert check["cost"]["seconds"] > 0
    text = invoke("verify", artifact, exported, "--limit", 8, "--runtime", "all").stdout
    assert "openvino: not installed; pip install it" in text


def test_a_runtime_that_is_missing_or_cannot_run_the_file_is_one_line_and_a_status(
    artifact: Path, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(RUNTIMES, "openvino", FakeRuntime("not installed; pip install openvino"))
    line = fails("verify", artifact, exported, "--limit", 8, "--runtime", "openvino")
    assert line == "muquant: error: runtime openvino: not installed; pip install openvino\n"
    monkeypatch.setitem(RUNTIMES, "openvino", FakeRuntime("", Measured("no operator Frobnicate")))
    result = invoke("verify", artifact, exported, "--limit", 8, "--runtime", "openvino")
    assert result.exit_code == 1
    assert f"openvino 1.0 cannot run {exported} (default): no operator Frobnicate\n" in result.stdout
    assert "FAIL" in result.stdout
    document = json.loads(
        invoke("verify", artifact, exported, "--limit", 8, "--runtime", "openvino", "--json").stdout
    )
    (check,) = document["runtimes"]
    assert (check["failed"], check["passed"], check["difference"]) == ("no operator Frobnicate", False, None)


def test_verify_takes_a_float_onnx_file(artifact: Path, run: Path, tmp_path: Path) -> None:
    plain, small, samples = (tmp_path / name for name in ("float.onnx", "small.onnx", "samples.npy"))
    export_float(load_run(run), plain, load_dataset("digits", "test").inputs()[:2])
    invoke_json("compress", plain, "-o", small, "--no-check")
    np.save(samples, load_dataset("digits", "test").inputs()[:50].numpy())
    for options, count in (((), 8), (("--data", "digits", "--limit", 20), 20), (("--data", samples), 50)):
        document = invoke_json("verify", plain, small, *options)
        assert document["passed"]
        assert document["count"] == document["answers"]["count"] == count
        assert document["answers"]["sqnr"] > 5
    text = invoke("verify", plain, small, "--data", samples).stdout
    assert "against its codes decoded by numpy, on 50 samples" in text
    assert "Answers beside the float model's, on 50 samples" in text
    assert "leave the option out" in fails("verify", plain, small, "--module", "torchvision:resnet18")
    assert "cannot read" in fails("verify", plain, tmp_path / "no.onnx")
    assert "is not known" in fails("verify", plain, small, "--data", "no-such-data")
    assert "cannot read" in fails("verify", plain, small, "--data", "no-such.npz")


def test_verify_fails_with_status_1_on_another_models_file(
    artifact: Path, exported: Path, tmp_path: Path
) -> None:
    other = muquant.load(artifact)
    with torch.no_grad():
        other.module.get_parameter("fc2.bias").add_(1.0)
    other.save(tmp_path / "other.mq")
    result = invoke("verify", tmp_path / "other.mq", exported, "--limit", 8, "--json")
    assert result.exit_code == 1
    assert not json.loads(result.stdout)["passed"]
    assert "FAIL" in result.stderr


def test_inspect_shows_an_artifact_and_an_onnx_file(artifact: Path, exported: Path) -> None:
    layers = invoke_json("inspect", artifact)["layers"]
    weights = invoke_json("inspect", exported)["weights"]
    assert [layer["name"] for layer in layers] == list(weights)
    assert all(layer["mu"] == weights[layer["name"]]["mu"] for layer in layers)
    for layer in layers:
        assert set(layer["matrix_norms"]) == set(layer["operator_norms"]) == {"one", "two", "inf"}
    flagged = any(layer["operator_norms"][p] > 1 for layer in layers for p in ("one", "two", "inf"))
    text = invoke("inspect", artifact).stdout
    assert "conv1.weight" in text
    assert all(f"||dW||_{p}" in text for p in ("1", "2", "inf"))
    assert ("(> 1)" in text) == flagged


def test_demo_goes_the_whole_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "muquant_cli.commands.demo.DEMO_CONFIG", DEMO_CONFIG.__class__(**{**vars(DEMO_CONFIG), "epochs": 3})
    )
    monkeypatch.setattr("muquant_cli.commands.demo.DEMO_ATTACKED", 20)
    document: Any = invoke_json("demo", "-o", tmp_path / "demo")
    assert document["verify"]["passed"]
    assert document["accuracy"]["muquant, 3 bits"] > 0.8
    # of the file of so small a network, the nodes that decode each width and the rest of the graph are most
    graph = onnx.load(tmp_path / "demo" / "model.onnx").graph
    nodes = sum(node.ByteSize() for node in graph.node)
    assert nodes < 16_000
    assert document["export"]["nbytes"] < 3 / 32 * document["float_nbytes"] + nodes + 7_000
    assert {path.name for path in (tmp_path / "demo").iterdir()} == {
        "run",
        "model.mq",
        "model.onnx",
        "float.onnx",
        "weights.png",
        "report",
    }
    assert [(model["name"], model["runtime"]) for model in document["bench"]["models"]] == [
        (name, runtime) for name in ("float", "3 bits") for runtime in ("torch", "onnx")
    ]
    assert {path.name for path in (tmp_path / "demo" / "report").iterdir()} >= {"report.html", "report.json"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_speaks_json(name: str) -> None:
    text = " ".join(invoke(name, "--help").stdout.split())
    assert "--json" in text


@pytest.mark.parametrize("name", COMMANDS)
def test_help_states_a_default_once_and_says_something(name: str) -> None:
    text = " ".join(invoke(name, "--help").stdout.split())
    assert not re.search(r"\[default: [^]]*\] \[default: ", text)
    assert '[default: ""]' not in text


def test_inspect_draws_the_levels_of_an_artifact(run: Path, artifact: Path, tmp_path: Path) -> None:
    invoke_json("inspect", artifact, "--plot", tmp_path / "weights.png", "--run", run)
    assert (tmp_path / "weights.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("attack", ["fgsm", "uniform-noise"])
def test_inspect_measures_and_draws_how_errors_grow(
    attack: str, run: Path, artifact: Path, tmp_path: Path
) -> None:
    options = ("--run", run, "--data", "digits", "--attack", attack, "--epsilon", "51/255", "--limit", 30)
    picture = tmp_path / "errors.png"
    document = invoke_json("inspect", artifact, *options, "--amplification", picture)["amplification"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert (document["attack"], document["epsilon"]) == (attack, 0.2)
    assert [layer["name"] for layer in document["layers"]] == ["conv1", "conv2", "fc1", "fc2"]
    images = load_dataset("digits", "test").inputs(slice(30))
    assert 0 < document["count"] <= 30
    if attack == "uniform-noise":  # all images: the quantization error of the first layer by hand
        model: Any = load_run(run)
        small = muquant.load(artifact).module
        with torch.inference_mode():
            clean = model.conv1(model.normalize(images))
            error = small.get_submodule("conv1")(model.normalize(images)) - clean
        assert document["count"] == 30
        expected = float(error.norm() / clean.norm())
        assert document["layers"][0]["quantized"]["total"] == pytest.approx(expected, rel=1e-5)
    text = invoke("inspect", artifact, *options, "--amplification", picture).stdout
    assert f"{attack} 0.2" in text
    assert "dW dx" in text


def test_inspect_compares_a_model_trained_for_few_bits_with_its_float_weights(tmp_path: Path) -> None:
    run, file = tmp_path / "run", tmp_path / "model.mq"
    options = ("--data", "digits", "--model", "cnn4-small", "--epochs", 1, "--augment", "none", "--qat")
    invoke_json("train", *options, "--out", run)
    invoke_json("compress", run, "-o", file)
    pictures = ("--plot", tmp_path / "weights.svg", "--amplification", tmp_path / "errors.svg")
    noise = ("--data", "digits", "--attack", "uniform-noise", "--limit", 5)
    document = invoke_json("inspect", file, "--run", run, *pictures, *noise)
    assert [layer["bits"] for layer in document["amplification"]["layers"]] == [3, 3, 3, 3]
    assert document["amplification"]["layers"][0]["quantized"]["total"] > 0
    assert "<!-- weights -->" in (tmp_path / "weights.svg").read_text()  # the histogram's place in the legend
