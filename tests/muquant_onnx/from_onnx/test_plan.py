"""Plans for graphs: what they say is what the file that follows them is and does."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

from muquant import InputError, MuLawSpec
from muquant_onnx import compress_onnx, compress_program, load_session, plan_onnx, plan_program

SPEC = MuLawSpec(mu=1.5)  # mu is not searched, for which most of the time goes


def numbers(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


X = torch.from_numpy(numbers(0, 200, 12))


def save(path: Path, first: str = "y", output: int = TensorProto.FLOAT) -> Path:
    """Two layers; the node that uses "b" bears the name of the other weight."""
    nodes = [
        helper.make_node("MatMul", ["x", "a"], ["h"], name="first"),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("Gemm", ["r", "b"], ["y"], name="a"),
        helper.make_node("ArgMax", ["y"], ["label"], axis=1, keepdims=0),
        helper.make_node("SequenceConstruct", ["y"], ["list"]),
    ]
    kinds = {
        "y": helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 6]),
        "label": helper.make_tensor_value_info("label", TensorProto.INT64, ["n"]),
        "list": helper.make_tensor_sequence_value_info("list", TensorProto.FLOAT, None),
    }
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 12])],
        [kinds[first]],
        [numpy_helper.from_array(numbers(1, 12, 40), "a"), numpy_helper.from_array(numbers(2, 40, 6), "b")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def test_a_plan_s_figures_are_those_of_the_file(tmp_path: Path) -> None:
    source, small = save(tmp_path / "model.onnx"), tmp_path / "small.onnx"
    for calibration in (None, X):
        plan = plan_onnx(source, SPEC, max_bytes=600, calibration=calibration)
        report = compress_onnx(
            source,
            small,
            SPEC,
            layers=plan.layers,
            overrides=plan.overrides,
            calibration=calibration,
            rounding="nearest",
        )
        assert {weight.name: weight.bits for weight in report.weights} == plan.bits
        assert set(plan.bits.values()) != {3}
        assert sum(weight.nbytes for weight in report.weights) == plan.nbytes <= 600
        for weight, curve in zip(report.weights, plan.curves, strict=True):
            assert curve.measured_on == ("weight" if calibration is None else "answers")
            assert curve.at(weight.bits).nbytes == weight.nbytes


def test_a_weight_is_picked_by_its_whole_name_whatever_nodes_are_called(tmp_path: Path) -> None:
    source = save(tmp_path / "model.onnx")
    for bits in ({"a": 2, "b": 7}, {"b": 7, "a": 2}):
        overrides = {f"={name}": width for name, width in bits.items()}
        report = compress_onnx(source, tmp_path / "small.onnx", SPEC, overrides=overrides)
        assert {weight.name: weight.bits for weight in report.weights} == {"a": 2, "b": 7}
    plan = plan_onnx(source, SPEC, max_bytes=1000, overrides={"first": 2}, layers="first")
    assert plan.bits == {"a": 2}


@pytest.mark.parametrize("first", ["y", "label"])
def test_the_drop_is_that_of_the_file_under_onnxruntime(first: str, tmp_path: Path) -> None:
    source, small = save(tmp_path / "model.onnx", first), tmp_path / "small.onnx"
    steps: list[tuple[str, int, int]] = []
    plan = plan_onnx(
        source, SPEC, max_drop=6, calibration=X, policy="int8", on_step=lambda *step: steps.append(step)
    )
    compress_onnx(source, small, SPEC, overrides=plan.overrides, calibration=X, policy="int8")
    exact, found = (load_session(path).run(None, {"x": X[3::4].numpy()})[0] for path in (source, small))
    if first == "y":
        exact, found = exact.argmax(1), found.argmax(1)
    assert plan.drop is not None
    assert (plan.drop.changed, plan.drop.answers) == (int((exact != found).sum()), 50)
    assert plan.drop.points <= 6
    assert plan.nbytes < plan_onnx(source, SPEC, max_bytes=10**6).nbytes
    assert [what for what, _, _ in steps[:2]] == ["measuring a", "measuring b"]
    assert len(steps) > 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "needs a limit"),
        ({"max_bytes": 10}, "max_bytes is 10; the narrowest widths allowed take"),
        ({"max_drop": 1}, "give a calibration"),
        ({"max_drop": 1, "calibration": X[:, :7]}, "input x has the shape"),
        ({"max_drop": 1, "calibration": X.log()}, "calibration: input 0: .* in sample 0;"),
        ({"max_bytes": 600, "layers": "conv"}, "layers 'conv' matches no layer"),
        ({"max_bytes": 600, "layers": "auto"}, 'layers "auto"'),
        ({"max_bytes": 600, "overrides": {"=c": 4}}, "no weight is called c; the weights are a, b"),
        ({"max_bytes": 600, "policy": "fast"}, "policy 'fast' is unknown"),
        ({"max_bytes": 600, "observer": "eye"}, "observer 'eye' is unknown"),
    ],
)
def test_bad_input(options: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        plan_onnx(save(tmp_path / "model.onnx"), SPEC, **options)
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


def test_outputs_that_answer_nothing(tmp_path: Path) -> None:
    source = save(tmp_path / "model.onnx", "list")
    with pytest.raises(InputError, match="the first output is no tensor of numbers"):
        plan_onnx(source, SPEC, max_drop=1, calibration=X)
    onnx.save(helper.make_model(onnx.load(source).graph, ir_version=9), source)
    (tmp_path / "none.onnx").write_bytes(b"")
    with pytest.raises(InputError, match="is not a whole ONNX file"):
        plan_onnx(tmp_path / "none.onnx", SPEC, max_bytes=1)


@pytest.mark.slow
def test_a_plan_for_a_program_is_followed_by_its_compression(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.one, self.two = nn.Linear(12, 20), nn.Linear(20, 5)

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.two(self.one(x).relu())
            return output

    batch = torch.export.Dim("batch")
    program = torch.export.export(Net(), (X[:2],), dynamic_shapes=({0: batch},))
    torch.export.save(program, tmp_path / "net.pt2")
    plan = plan_program(tmp_path / "net.pt2", SPEC, max_drop=10, calibration=X)
    assert plan.drop is not None
    report = compress_program(
        tmp_path / "net.pt2", tmp_path / "small.onnx", SPEC, overrides=plan.overrides, calibration=X
    )
    assert {weight.name: weight.bits for weight in report.weights} == plan.bits
    with pytest.raises(InputError, match=r"net.pt2: expected inputs x, found z"):
        plan_program(tmp_path / "net.pt2", SPEC, max_drop=10, calibration={"z": X})
