"""Older files are raised to opset 13, and their outputs stay."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from muquant import InputError, MuLawSpec
from muquant_cli import main
from muquant_onnx import compress_onnx, decode_file, plan_onnx

FLOAT = TensorProto.FLOAT


def values(seed: int, *shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def node(op: str, inputs: str, output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], **attributes)


def model(opset: int, *nodes: onnx.NodeProto, x: tuple[int | str, ...] = ("n", 3, 16, 16)) -> onnx.ModelProto:
    tensors: dict[str, NDArray[Any]] = {
        "w": values(0, 32, 3, 3, 3) / 5,
        "v": values(1, 32, 64) / 5,
        "u": values(2, 16, 64),
        "one": np.ones(32, np.float32),
        "odd": np.array([7, 16]),
        "scales": np.array([1, 1, 2, 2], np.float32),
    }
    used = {name for each in nodes for name in each.input}
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", FLOAT, x)],
        [helper.make_tensor_value_info("y", FLOAT, None if opset > 7 else ("n", 64))],
        [numpy_helper.from_array(value, name) for name, value in tensors.items() if name in used],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=4)


def save(proto: onnx.ModelProto, folder: Path) -> Path:
    (folder / "model.onnx").write_bytes(proto.SerializeToString())
    return folder / "model.onnx"


def run(path: Path, x: NDArray[Any]) -> NDArray[Any]:
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    output: NDArray[Any] = session.run(None, {"x": x})[0]
    return output


CONVOLUTION = [
    node("Conv", "x w", "a"),
    node("BatchNormalization", "a one one one one", "b"),
    node("Dropout", "b", "c"),
    node("GlobalAveragePool", "c", "d"),
    node("Squeeze", "d", "e", axes=[2, 3]),
    node("MatMul", "e v", "y"),
]
MODELS = {
    7: model(7, *CONVOLUTION),
    9: model(9, *CONVOLUTION, x=("n", 3, "height", "width")),
    10: model(10, node("Clip", "x", "a", min=-0.5, max=0.5), node("MatMul", "a u", "y")),
    11: model(11, node("MatMul", "x u", "a"), node("Softmax", "a", "y", axis=1)),  # over three axes together
    12: model(12, node("MatMul", "x u", "a"), node("ReduceSum", "a", "y", axes=[1])),
}


@pytest.mark.parametrize("opset", MODELS)
def test_what_is_raised_gives_what_it_gave(opset: int, tmp_path: Path, capfd: Any) -> None:
    source, small, x = save(MODELS[opset], tmp_path), tmp_path / "small.onnx", values(3, 5, 3, 16, 16)
    report = compress_onnx(source, small, MuLawSpec(8))
    assert report.raised_from == opset
    assert report.source_nbytes == source.stat().st_size
    assert [entry.version for entry in onnx.load(small).opset_import if not entry.domain] == [13]
    exact = run(source, x)
    assert np.abs(run(small, x) - exact).max() < 0.03 * np.abs(exact).max()
    stored = {each.name: numpy_helper.to_array(each) for each in MODELS[opset].graph.initializer}
    for name, found in decode_file(small).items():
        assert np.abs(found - stored[name]).max() < 0.02 * np.abs(stored[name]).max()
    assert capfd.readouterr().err == ""


def test_operators_that_onnxruntime_put_into_onnx_stay_as_they_are(tmp_path: Path) -> None:
    """Its optimiser writes such, whatever the file's opset; also into branches."""
    norms = [
        node("SimplifiedLayerNormalization", "x sixteen", "a", epsilon=1e-5, axis=-1),
        node("LayerNormalization", "a sixteen sixteen", "b", epsilon=1e-5, axis=-1),
    ]
    branch = helper.make_graph(
        [node("LayerNormalization", "b sixteen sixteen", "c", epsilon=1e-5, axis=-1)],
        "branch",
        [],
        [helper.make_tensor_value_info("c", FLOAT, None)],
    )
    chosen = node("If", "yes", "d", then_branch=branch, else_branch=branch)
    proto = model(
        11, *norms, chosen, node("MatMul", "d u", "e"), node("Squeeze", "e", "y", axes=[1]), x=("n", 1, 16)
    )
    proto.graph.initializer.extend(
        numpy_helper.from_array(value, name)
        for value, name in ((np.ones(16, np.float32), "sixteen"), (np.array(True), "yes"))
    )
    source, x = save(proto, tmp_path), values(3, 5, 1, 16)
    report = compress_onnx(source, tmp_path / "small.onnx", MuLawSpec(8), policy="float")
    assert report.raised_from == 11
    exact, found = run(source, x), run(tmp_path / "small.onnx", x)
    assert np.linalg.norm(found - exact) < 0.02 * np.linalg.norm(exact)
    small = onnx.load(tmp_path / "small.onnx")
    assert not any("aside" in each.domain for each in small.opset_import)
    assert not {each.name for each in small.graph.value_info} & set("abcde")  # none was stated


def test_external_data_samples_and_plans(tmp_path: Path) -> None:
    inline = save(MODELS[9], tmp_path)
    outside = tmp_path / "external.onnx"
    onnx.save(MODELS[9], outside, save_as_external_data=True, location="data", size_threshold=0)
    samples, files = torch.from_numpy(values(4, 8, 3, 16, 16)), []
    for source in (inline, outside):
        plan = plan_onnx(source, max_bytes=4000, calibration=samples)
        report = compress_onnx(
            source, tmp_path / "small.onnx", overrides=plan.overrides, calibration=samples, rounding="nearest"
        )
        assert all(weight.output_sqnr is not None for weight in report.weights)
        files.append((tmp_path / "small.onnx").read_bytes())
    assert files[0] == files[1]


def test_later_files_are_left_as_they_are(tmp_path: Path) -> None:
    source = save(model(13, node("MatMul", "x u", "y")), tmp_path)
    assert compress_onnx(source, tmp_path / "small.onnx").raised_from is None


def test_the_command_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = save(MODELS[11], tmp_path)
    main(["compress", str(source), "-o", str(tmp_path / "small.onnx")], standalone_mode=False)
    assert f"{source} had opset 11 and was raised to 13" in capsys.readouterr().out.replace("\n", " ")


def refused(source: Path) -> str:
    before = sorted(source.parent.iterdir())
    with pytest.raises(InputError) as caught:
        compress_onnx(source, source.with_name("small.onnx"))
    assert sorted(source.parent.iterdir()) == before
    return str(caught.value).removeprefix(f"{source} ")


def test_what_cannot_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    never = model(11, node("Reshape", "x odd", "a"), node("MatMul", "a u", "y"))
    message = "has opset 11, expected 13 or later, and onnxruntime runs it on none of the inputs made up"
    assert refused(save(never, tmp_path)).startswith(message)
    assert "onnxruntime cannot load" in refused(save(model(11, node("MatMull", "x u", "y")), tmp_path))

    linear = model(9, node("MatMul", "x u", "a"), node("Upsample", "a scales", "y", mode="linear"))
    assert refused(save(linear, tmp_path)) == (  # onnx makes a Resize of it that takes other places
        "has opset 9, expected 13 or later, and its output y differs once converted; export it again with "
        "opset 13 or later"
    )

    def fail(*_: object) -> None:
        raise RuntimeError("no adapter")

    monkeypatch.setattr(onnx.version_converter, "convert_version", fail)
    assert refused(save(MODELS[11], tmp_path)) == (
        "has opset 11, expected 13 or later, and onnx cannot convert it: no adapter; export it again with "
        "opset 13 or later"
    )


def test_shapes_of_initializers_are_stated_once(tmp_path: Path) -> None:
    source = save(model(13, node("MatMul", "x u", "y")), tmp_path)
    compress_onnx(source, tmp_path / "small.onnx")
    graph = onnx.load(tmp_path / "small.onnx").graph
    assert graph.value_info  # of what is decoded
    assert not {value.name for value in graph.value_info} & {tensor.name for tensor in graph.initializer}
