"""`muquant compress` within a budget, and plans that are edited and read again."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

import muquant
from muquant.compression.budget import WidthCurve, WidthPoint
from muquant_cli.options.budget import parse_size

from ..conftest import fails, invoke, invoke_json

pytestmark = pytest.mark.slow
QUICK = ("--mu", 1.5, "--rounding", "nearest")  # mu is not searched, for which most of the time goes


def widths(document: Any, kind: str = "layers") -> dict[str, int]:
    return {each["name"]: each["bits"] for each in document[kind]}


def test_within_bytes(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "model.mq"
    document = invoke_json("compress", run, "-o", out, "--max-bytes", "10kB", *QUICK)
    plan = json.loads((tmp_path / "model.plan.json").read_text())
    assert document["plan"] == plan
    assert document["plan_path"] == str(tmp_path / "model.plan.json")
    assert plan["schema"] == "muquant.plan/1"
    assert plan["max_bytes"] == 10000
    assert sum(layer["nbytes"] for layer in document["layers"]) <= 10000
    assert widths(document) == plan["bits"]
    assert {weight: q.spec.bits for weight, q in muquant.load(out).tensors.items()} == plan["bits"]
    assert len(set(plan["bits"].values())) > 1


def test_a_plan_is_printed_with_its_reasons(run: Path, tmp_path: Path) -> None:
    options = ("--bits", "3,fc2=8", "--max-drop", 3, "--calibration", "digits", "--samples", 80)
    result = invoke("compress", run, "-o", tmp_path / "a.mq", *options, *QUICK)
    assert result.exit_code == 0, result.stderr
    text = " ".join(result.stdout.split())
    assert "run at " in text
    assert "fc2.weight 8 (asked for)" in text
    assert "Packed weights: " in text
    assert f"the rest of {tmp_path / 'a.mq'}: " in text
    assert "of 20 held-out ones; by all margins " in text
    assert "; at most 3 are allowed" in text
    assert f"Wrote {tmp_path / 'a.plan.json'}" in text


def test_a_plan_is_edited_and_followed(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.plan.json"
    before = invoke_json(
        "compress", run, "-o", tmp_path / "a.mq", "--max-bytes", "6KiB", "--layers", "fc", *QUICK
    )
    again = invoke_json("compress", run, "-o", tmp_path / "b.mq", "--plan", path, *QUICK)
    assert again["layers"] == before["layers"]
    one, other = (muquant.load(tmp_path / name).tensors for name in ("a.mq", "b.mq"))
    assert list(one) == list(other) == ["fc1.weight", "fc2.weight"]
    assert all(torch.equal(one[name].codes, other[name].codes) for name in one)
    assert "plan" not in again
    assert not (tmp_path / "b.plan.json").exists()
    plan = json.loads(path.read_text())
    plan["bits"] = {"fc1.weight": 2, "fc2.weight": 7}
    path.write_text(json.dumps(plan))
    assert (
        widths(invoke_json("compress", run, "-o", tmp_path / "b.mq", "--plan", path, *QUICK)) == plan["bits"]
    )


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(12, 30), nn.ReLU(), nn.Linear(30, 5)).eval()
    exported = torch.onnx.export(
        model, (torch.zeros(2, 12),), dynamo=True, verbose=False, dynamic_shapes=({0: "n"},)
    )
    assert exported is not None
    onnx.save(exported.model_proto, tmp_path / "net.onnx")
    return tmp_path / "net.onnx"


@pytest.mark.filterwarnings("ignore")  # torch's exporter has deprecations of its own
def test_graphs_have_plans_too(graph: Path, tmp_path: Path) -> None:

    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((120, 12)).astype(np.float32))
    out = tmp_path / "small.onnx"
    options = ("--max-drop", 5, "--max-bytes", "0.5 kB", "--calibration", tmp_path / "x.npy")
    document = invoke_json("compress", graph, "-o", out, *options, *QUICK)
    plan = document["plan"]
    assert plan["drop"]["answers"] == 30
    assert plan["drop"]["expected"] <= 0.05
    assert widths(document, "weights") == plan["bits"]
    assert sum(weight["nbytes"] for weight in document["weights"]) <= 500
    again = invoke_json("compress", graph, "-o", out, "--plan", tmp_path / "small.plan.json", *QUICK)
    assert widths(again, "weights") == plan["bits"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("5000", 5000),
        ("500kB", 500_000),
        ("1.2MB", 1_200_000),
        ("1.2 MB", 1_200_000),
        ("2k", 2000),
        ("1GB", 10**9),
        ("64KiB", 65536),
        ("1.5MiB", 3 * 2**19),
        ("2Gi", 2**31),
        ("0.29kB", 290),
        ("7B", 7),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--max-bytes", "many"), ("--max-bytes is 'many'", "kB, MB, GB, KiB")),
        (("--max-bytes", "-5"), ("--max-bytes is '-5'",)),
        (("--max-bytes", "1e3"), ("--max-bytes is '1e3'",)),
        (("--max-bytes", "1KB"), ("--max-bytes is '1KB'",)),
        (("--max-bytes", "100"), ("max_bytes is 100; the narrowest widths allowed take", "give at least")),
        (("--max-bytes", "9kB", "--layers", "auto"), ('layers "auto"', "leave one of the two out")),
        (("--max-bytes", "9kB", "--bits", "3,foo=8"), ("override 'foo' matches no layer",)),
        (("--max-bytes", "9kB", "--mu", 255, "--domain", "mapped"), ('domain "mapped"', '"decoded"')),
        (("--max-drop", "1"), ("max_drop", "give a calibration")),
        (("--max-drop", "-1", "--calibration", "digits"), ("max_drop is -1",)),
        (("--max-drop", "nan", "--calibration", "digits"), ("max_drop is nan",)),
        (("--plan", "none.json"), ("cannot read none.json",)),
        (("--plan", "none.json", "--max-bytes", "9kB"), ("--plan names the widths",)),
        (("--plan", "none.json", "--max-drop", "9"), ("--plan names the widths",)),
    ],
)
def test_a_bad_option(options: tuple[object, ...], words: tuple[str, ...], run: Path, tmp_path: Path) -> None:
    message = fails("compress", run, "-o", tmp_path / "a.mq", *options)
    assert all(word in message for word in words), message
    assert list(tmp_path.iterdir()) == []


def test_a_plan_of_another_model(run: Path, tmp_path: Path) -> None:
    point = [WidthPoint(bits, bits, 0.1) for bits in range(2, 9)]
    curve = WidthCurve("foo", "weight", None, tuple(point))
    muquant.Plan({"foo": 3}, "all", 100, None, None, (curve,)).save(tmp_path / "a.plan.json")
    arguments = ("compress", run, "-o", tmp_path / "a.mq", "--plan", tmp_path / "a.plan.json")
    assert "override '=foo': no weight is called foo; the weights are conv1.weight" in fails(*arguments)
    assert "leave out --bits and --layers" in fails(*arguments, "--bits", 4)
    assert "leave out --bits and --layers" in fails(*arguments, "--layers", "fc")
    assert [path.name for path in tmp_path.iterdir()] == ["a.plan.json"]


def test_a_folder_that_is_missing_is_said_before_the_work(run: Path, tmp_path: Path) -> None:
    message = fails("compress", run, "-o", tmp_path / "no" / "a.mq", "--max-bytes", "9kB")
    assert "name a writable folder" in message


def test_pictures_that_are_made_up_are_told(tmp_path: Path) -> None:
    random, out = np.random.default_rng(0), tmp_path / "small.onnx"
    kernels = {
        "a": random.standard_normal((8, 3, 3, 3)).astype(np.float32),
        "b": random.standard_normal((4, 8, 3, 3)).astype(np.float32),
    }
    model = helper.make_graph(
        [helper.make_node("Conv", ["x", "a"], ["h"]), helper.make_node("Conv", ["h", "b"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 3, 16, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(each, name) for name, each in kernels.items()],
    )
    opset = helper.make_opsetid("", 17)
    onnx.save(helper.make_model(model, opset_imports=[opset], ir_version=9), tmp_path / "model.onnx")
    arguments = ("compress", tmp_path / "model.onnx", "-o", out, "--mu", 1.5)
    for options in ((), ("--no-synthetic",)):
        result = invoke(*arguments, *options)
        assert result.exit_code == 0, result.stderr
        told = "inputs that were made up stood for them" in " ".join(result.stdout.split())
        assert told == (not options)
        assert bool(invoke_json(*arguments, *options)["synthetic"]) == (not options)


@pytest.mark.filterwarnings("ignore")  # torch's exporter has deprecations of its own
def test_bits_are_an_average_unless_they_are_flat(graph: Path, tmp_path: Path) -> None:
    out = tmp_path / "small.onnx"
    np.save(tmp_path / "x.npy", np.random.default_rng(0).standard_normal((120, 12)).astype(np.float32))
    for options in ((), ("--calibration", tmp_path / "x.npy")):
        document = invoke_json("compress", graph, "-o", out, "--mu", 1.5, "--bits", 4, *options)
        assert document["synthetic"] == 0  # twelve numbers are no picture
        assert document["average_bits"]["codes"] <= 4
        assert document["average_bits"]["stored"] == pytest.approx(
            8 * sum(weight["nbytes"] for weight in document["weights"]) / (12 * 30 + 30 * 5)
        )
    flat = invoke_json("compress", graph, "-o", out, "--mu", 1.5, "--bits", 4, "--flat")
    assert set(widths(flat, "weights").values()) == {4}
    assert flat["average_bits"]["narrowest"] == flat["average_bits"]["widest"] == 4
