"""`muquant compress` ends with what stays float, why, and what that means for the bytes."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from .conftest import invoke, invoke_json

NET = """
import torch
from torch import nn

class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Parameter(torch.randn(500, 8))

    def forward(self, x):
        return x @ self.table.T @ self.table

def own():
    layers = [nn.Linear(8, 8) for _ in range(4)]
    return nn.Sequential(Own(), nn.LayerNorm(8), *layers)

def shown():
    return own(), torch.rand(2, 8)

def small():
    return nn.Linear(8, 8), torch.randn(4, 8)

def plain():
    return nn.Linear(8, 8, bias=False)
"""
PACKED = 8 * 8 * 3 // 8 + 8 * 4
"""Bytes of a layer's codes and steps."""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("net_of_left_alone.py").write_text(NET)


def said(*arguments: str) -> tuple[dict[str, Any], list[str]]:
    """The document, and the lines for people behind the table of layers, without their padding."""
    document = invoke_json("compress", *arguments)
    text = invoke("compress", *arguments, "--no-check").stdout
    return document, [" ".join(line.split()) for line in text.splitlines() if line.strip()]


REASON = "use unknown: give an example or calibration samples, which show it"


def test_of_a_module() -> None:
    document, lines = said("net_of_left_alone:own", "-o", "a.mq")
    before, kept = 16000 + 4 * 256 + 6 * 32, 16000 + 6 * 32
    after = kept + 4 * PACKED
    rows = [
        f"0.table 16,000 {REASON}",
        *(f"{name} 32 one axis" for name in ("1.weight", "1.bias", "2.bias", "3.bias")),
        "2 more 64 one axis",
    ]
    place = lines.index("Left alone: 7")
    assert lines[place + 3 :] == [
        *rows,
        f"{before:,} bytes of weights before, {after:,} after; {kept:,} bytes stay float",
        f"Less than half was compressed: 1,024 of {before:,} bytes",
    ]
    sizes = {"before": before, "after": after, "left_float": kept, "mostly_float": True}
    assert document["weight_bytes"] == sizes
    assert [each["nbytes"] for each in document["left_alone"]] == [16000, *[32] * 6]
    first = {"name": "0.table", "shape": [500, 8], "nbytes": 16000, "reason": REASON}
    assert document["left_alone"][0] == first


def test_the_example_of_a_module_shows_its_weights() -> None:
    document, _ = said("net_of_left_alone:shown", "-o", "a.mq", "--flat")
    assert document["layers"][0]["name"] == "0.table"
    assert document["layers"][0]["nbytes"] == 500 * 8 * 3 // 8 + 500 + 4  # steps in 8 bits, one unit
    assert document["weight_bytes"]["left_float"] == 6 * 32
    budget = invoke_json("compress", "net_of_left_alone:shown", "-o", "b.mq", "--max-bytes", "5000")
    assert [layer["name"] for layer in budget["layers"]] == [layer["name"] for layer in document["layers"]]


def test_of_a_module_that_is_compressed_whole() -> None:
    document, lines = said("net_of_left_alone:plain", "-o", "a.mq")
    assert lines[-2:] == [
        f"Wrote a.mq: {Path('a.mq').stat().st_size:,} bytes",
        f"256 bytes of weights before, {PACKED} after; nothing stays float",
    ]
    assert not document["left_alone"]
    assert not document["weight_bytes"]["mostly_float"]


@pytest.mark.parametrize(("rows", "mostly_float"), [(7, False), (8, True)])  # 7: half of the bytes
def test_of_a_graph(rows: int, mostly_float: bool) -> None:
    values = {
        "w": np.random.default_rng(0).standard_normal((8, 8)),
        "b": np.ones(8),
        "m": np.ones((rows, 1, 8)),
    }
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w"], ["h"]),
            helper.make_node("Add", ["h", "b"], ["g"]),
            helper.make_node("Mul", ["g", "m"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, (5, 8))],
        [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, (rows, 5, 8))],
        [numpy_helper.from_array(value.astype(np.float32), name) for name, value in values.items()],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), "net.onnx")
    document, lines = said("net.onnx", "-o", "a.onnx")
    other = 32 * rows
    kept, before = 32 + other, 256 + 32 + other
    last = [f"{before} bytes of weights before, {kept + PACKED} after; {kept} bytes stay float"]
    if mostly_float:
        last.append(f"Less than half was compressed: 256 of {before} bytes")
    left = {
        "b 32 it has one axis; a weight has channels and inputs",
        f"m {other} no layer computes with it; Mul does",
    }
    assert set(lines[lines.index("Left alone: 2") + 3 : -len(last)]) == left
    assert lines[-len(last) :] == last
    sizes = {"before": before, "after": kept + PACKED, "left_float": kept, "mostly_float": mostly_float}
    assert document["weight_bytes"] == sizes
    assert {each["name"]: each["nbytes"] for each in document["left_alone"]} == {"b": 32, "m": other}


def test_another_width_than_was_asked_for_is_said(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    tensors = [
        numpy_helper.from_array(random.standard_normal((1, 32, 8)).astype(np.float32), name)
        for name in ("lw", "lr")
    ]
    shapes = {"x": [3, 2, 8], "y": [3, 1, 2, 8]}
    info = {name: helper.make_tensor_value_info(name, 1, shape) for name, shape in shapes.items()}
    lstm = helper.make_node("LSTM", ["x", "lw", "lr"], ["y"], hidden_size=8)
    graph = helper.make_graph([lstm], "g", [info["x"]], [info["y"]], tensors)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path / "lstm.onnx")
    document, lines = said("lstm.onnx", "-o", "small.onnx")
    assert [weight["bits"] for weight in document["weights"]] == [8, 8]
    (note,) = {weight["note"] for weight in document["weights"]}
    assert f"Weights of recurrent layers (2): {note}" in lines
    document, lines = said("lstm.onnx", "-o", "small.onnx", "--bits", "3,lr=3")
    assert [(weight["bits"], bool(weight["note"])) for weight in document["weights"]] == [
        (8, True),
        (3, False),
    ]


def test_export_and_inspect_say_the_same() -> None:
    compressed = invoke_json("compress", "net_of_left_alone:own", "-o", "a.mq")
    inspected = invoke_json("inspect", "a.mq")
    assert inspected["weight_bytes"] == compressed["weight_bytes"]
    names = [[each["name"] for each in document["left_alone"]] for document in (compressed, inspected)]
    assert sorted(names[0]) == sorted(names[1])
    reasons = {each["name"]: each["reason"] for each in inspected["left_alone"]}
    assert (reasons["0.table"], reasons["2.bias"]) == ("float32 in the file", "one axis")
    assert (
        invoke("inspect", "a.mq").stdout.splitlines()[-1].startswith("Less than half was compressed: 1,024")
    )

    invoke_json("compress", "net_of_left_alone:small", "-o", "b.mq")
    exported = invoke_json("export", "b.mq", "-o", "b.onnx", "--module", "net_of_left_alone:small")
    assert [each["name"] for each in exported["left_alone"]] == ["bias"]
    assert exported["weight_bytes"] == {
        "before": 288,
        "after": PACKED + 32,
        "left_float": 32,
        "mostly_float": False,
    }


def test_uses_of_a_weight_that_are_served_alike_are_one_line() -> None:
    random = np.random.default_rng(0)
    tensors = [numpy_helper.from_array(random.standard_normal((8, 8)).astype(np.float32), "w")]
    nodes = [
        helper.make_node("MatMul", [source, "w"], [target]) for source, target in (("x", "h"), ("h", "y"))
    ]
    info = {name: helper.make_tensor_value_info(name, 1, [3, 8]) for name in "xy"}
    graph = helper.make_graph(nodes, "g", [info["x"]], [info["y"]], tensors)
    opsets = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), "twice.onnx")
    lines = invoke("compress", "twice.onnx", "-o", "small.onnx", "--no-check").stdout.splitlines()
    served = [line.split() for line in lines if "MatMul" in line]
    assert [line[:4] for line in served if "(2" in line] == [["w", "MatMul", "(2", "times)"]]
