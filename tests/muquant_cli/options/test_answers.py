"""`muquant compress` says how alike the compressed model answers, and can insist on it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import muquant as mq
from muquant.base.errors import InputError
from muquant_cli.options.answers import Wanted
from muquant_onnx import export_float

from ..conftest import fails, invoke, invoke_json

NET = """
import torch
from torch import nn

def net():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 10)), torch.randn(40, 16)

def unknown():
    return nn.Linear(8, 8)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("net_of_answers.py").write_text(NET)


@pytest.fixture
def graph() -> str:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 10))
    export_float(model, "net.onnx", torch.randn(4, 16))
    return "net.onnx"


def test_of_a_module() -> None:
    document = invoke_json("compress", "net_of_answers:net", "-o", "a.mq")["answers"]
    assert (document["inputs"], document["count"]) == ("the example", 40)
    lines = invoke("compress", "net_of_answers:net", "-o", "a.onnx").stdout.splitlines()
    said = next(line for line in lines if line.startswith("Answers beside"))
    assert f"{document['sqnr']:.1f} dB" in said
    assert lines[-1].endswith("bytes stay float")  # the bytes are the last line
    silent = invoke("compress", "net_of_answers:net", "-o", "a.mq", "--no-check").stdout
    assert "Answers" not in silent
    assert invoke_json("compress", "net_of_answers:net", "-o", "a.mq", "--no-check")["answers"] is None


def test_of_a_graph(graph: str) -> None:
    np.save("samples.npy", np.random.default_rng(0).standard_normal((32, 16)).astype(np.float32))
    document = invoke_json("compress", graph, "-o", "a.onnx", "--calibration", "samples.npy")["answers"]
    assert (document["inputs"], document["count"]) == ("held-out samples", 8)
    document = invoke_json("compress", graph, "-o", "a.onnx", "--bits", "2")
    assert not document["answers"]["good"]
    assert "--calibration" in document["answers"]["warning"]
    text = invoke("compress", graph, "-o", "a.onnx", "--bits", "2").stdout
    assert "random numbers are not your data" in text
    assert "\nWarning: the compressed model no longer answers like yours (" in text


@pytest.mark.parametrize("source", ["net_of_answers:net", "graph"])
def test_what_is_not_reached_is_status_1(source: str, graph: str) -> None:
    source = graph if source == "graph" else source
    for limits, wrong in (
        (["--min-sqnr", "90"], "dB, wanted 90"),
        (["--min-agreement", "99.9", "--bits", "2"], "of its answers equal, wanted 99.9"),
    ):
        result = invoke("compress", source, "-o", "a.onnx", "--json", *limits)
        assert result.exit_code == 1
        last = result.stderr.splitlines()[-1]
        assert last.startswith("muquant: a.onnx is written, but does not answer as it has to: ")
        assert last.endswith(wrong)
        assert json.loads(result.stdout)["path"] == "a.onnx"
        assert Path("a.onnx").exists()
        Path("a.onnx").unlink()
    invoke_json(
        "compress", source, "-o", "a.onnx", "--bits", "8", "--min-sqnr", "30", "--min-agreement", "0.9"
    )


def test_what_was_not_measured_is_not_reached() -> None:
    result = invoke("compress", "net_of_answers:unknown", "-o", "a.mq", "--min-agreement", "90")
    assert result.exit_code == 1
    assert "--min-agreement: Answers not checked: nothing is known to run the model on" in result.stderr
    plain = invoke("compress", "net_of_answers:unknown", "-o", "a.mq")
    assert plain.exit_code == 0
    assert "Answers not checked: nothing is known to run the model on; give an example" in plain.stdout


@pytest.mark.parametrize(
    ("text", "share"), [("90", 0.9), ("0.9", 0.9), ("1", 1.0), ("0.5%", 0.005), ("100", 1.0), ("0", 0.0)]
)
def test_percent_and_shares(text: str, share: float) -> None:
    assert Wanted.read(True, None, text).min_agreement == pytest.approx(share)


@pytest.mark.parametrize(
    "options",
    [
        ["--min-sqnr", "much"],
        ["--min-sqnr", "nan"],
        ["--min-agreement", "101"],
        ["--min-agreement=-1"],
        ["--min-agreement", "most"],
        ["--no-check", "--min-sqnr", "3"],
    ],
)
def test_bad_input(options: list[str]) -> None:
    assert options[0].split("=")[0] in fails("compress", "net_of_answers:net", "-o", "a.mq", *options)
    assert not Path("a.mq").exists()


def test_an_output_without_classes_has_no_agreement() -> None:
    output = mq.OutputCheck("y", (3, 4, 5), 30.0, None)
    answers = mq.AnswersCheck("the example", 3, (output,))
    assert Wanted(True, 20.0, None).missed(answers) == ""
    assert Wanted(True, None, 0.5).missed(answers) == "--min-agreement: no output is one to measure so"
    assert Wanted(True, 31.0, None).missed(answers) == "y: 30.0 dB, wanted 31"
    with pytest.raises(InputError):
        Wanted.read(False, "3", None)
