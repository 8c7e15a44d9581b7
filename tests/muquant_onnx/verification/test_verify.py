"""`verify` passes honest files, and every planted fault turns it into a failure or one clear line."""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from onnx import numpy_helper
from torch import Tensor, nn

import muquant as mq
from muquant_onnx import decode_file, export_float, export_onnx, load_session, verify
from muquant_onnx.serving.sessions import running_operators
from muquant_onnx.verification.runners.onnxruntime import OnnxRuntime
from muquant_onnx.verification.runners.runtime import Measured, Opened, PythonRuntime, Request, Way
from muquant_onnx.verification.weights import check_weights

pytestmark = pytest.mark.slow
X = torch.randn(40, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """A convolution with BatchNorm, which onnxruntime folds, and two matrices."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.fc = nn.Linear(64, width)
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.norm(self.conv(x)))
        output: Tensor = self.head(torch.relu(self.fc(x.flatten(1))))
        return output


@pytest.fixture(scope="module")
def compressed() -> mq.CompressedModel:
    torch.manual_seed(1)
    net = Net()
    nn.init.uniform_(net.norm.running_var, 0.5, 2)  # type: ignore[arg-type]
    net.head.weight.data = torch.eye(4, 32) + 0.01 * torch.randn(4, 32)
    net.head.bias.data = torch.tensor([2.0, 0.0, 0.0, 0.0])  # no near ties: 8-bit kernels keep every argmax
    return mq.compress(net, mq.MuLawSpec(mu=20.0), observer="absmax")


@pytest.fixture(scope="module")
def files(compressed: mq.CompressedModel, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    for policy in ("float", "int8"):
        export_onnx(compressed, folder / f"{policy}.onnx", X[:2], policy)
    return {policy: folder / f"{policy}.onnx" for policy in ("float", "int8")}


@pytest.fixture(scope="module")
def compressed_int4() -> mq.CompressedModel:
    torch.manual_seed(1)
    net = Net()
    net.head.weight.data = torch.eye(4, 32) + 0.01 * torch.randn(4, 32)
    net.head.bias.data = torch.tensor([2.0, 0.0, 0.0, 0.0])
    return mq.compress(net, mq.MuLawSpec(mu=5.0, grid="int4"), observer="absmax")


def test_an_honest_file_passes(compressed: mq.CompressedModel, files: dict[str, Path]) -> None:
    report = verify(compressed, files["int8"], X, batch_size=16)
    assert report.passed
    assert report.count == 40
    assert [check.name for check in report.weights] == list(compressed.tensors)
    by_setting = {check.setting: check for check in report.runtimes if check.policy is None}
    assert set(by_setting) == {"default", "accuracy-1", "unoptimized"}
    assert by_setting["default"].operators["MatMulNBits"] == 2
    assert "BatchNormalization" not in by_setting["accuracy-1"].operators  # folded, and still equal
    assert 1e-5 < by_setting["default"].difference < 0.05
    assert by_setting["accuracy-1"].difference < 1e-5
    (beside,) = report.floats
    for check in (*report.runtimes, beside):
        cost = check.cost
        assert cost is not None
        assert cost.seconds > 0
        assert cost.peak is not None
        assert cost.loaded is not None
        assert cost.peak >= cost.loaded
        assert set(cost.latency) == {1, 32}
        assert min(cost.latency.values()) > 0
        assert (cost.nbytes == files["int8"].stat().st_size) == (check is not beside)


@pytest.mark.usefixtures("quick")
def test_each_file_is_opened_once_for_each_way(
    compressed: mq.CompressedModel, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = Counter[tuple[str, str, str | None]]()
    whole = OnnxRuntime.open

    def counted(own: OnnxRuntime, path: str, way: Way, scratch: Path) -> Opened:
        opened[Path(path).name, way.setting, way.policy] += 1
        return whole(own, path, way, scratch)

    monkeypatch.setattr(OnnxRuntime, "open", counted)
    report = verify(compressed, files["int8"], X)
    del opened["empty.onnx", "default", None]
    assert set(opened.values()) == {1}
    assert len(opened) == len(report.runtimes) + 1  # and the float file


@pytest.mark.usefixtures("quick")
def test_a_float_file_passes(compressed: mq.CompressedModel, files: dict[str, Path]) -> None:
    report = verify(compressed, files["float"], X)
    assert report.passed
    exact = [check for check in report.runtimes if check.policy != "int8"]
    assert max(check.difference for check in exact) < 1e-5
    by_policy = {check.policy: check for check in report.runtimes if check.setting == "default"}
    assert set(by_policy) == {None, "float", "int8", "auto", "packed"}
    assert {policy: check.kernels for policy, check in by_policy.items() if check.kernels} == {"int8": 2}
    assert by_policy["int8"].operators["MatMulNBits"] == 2


@pytest.mark.usefixtures("quick")
def test_a_file_for_the_4_bit_kernel_passes_and_faults_in_what_it_is_given_do_not(
    compressed_int4: mq.CompressedModel, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    export_onnx(compressed_int4, path, X[:2], "int4")
    report = verify(compressed_int4, path, X)
    assert report.passed
    by_setting = {check.setting: check for check in report.runtimes if check.policy is None}
    assert by_setting["default"].operators["MatMulNBits"] == 2
    assert 1e-5 < by_setting["default"].difference < 0.05
    assert by_setting["accuracy-1"].difference < 1e-5

    for planted in ("carry", "scale", "sums"):
        model = onnx.load(path)
        nodes = {each.output[0]: each for each in model.graph.node}
        if planted == "carry":  # tables hold j + 1
            nodes["signed_less_one"].op_type = "Add"
        elif planted == "scale":  # one step instead of two
            nodes["fc.weight.blocked_scale"].input[0] = "fc.weight.scale"
        else:  # the steps are not added: weights are as they should be, outputs are not
            (gemm,) = [each for each in model.graph.node if each.output[0] == "fc.weight.with_steps"]
            gemm.attribute.append(onnx.helper.make_attribute("alpha", 0.0))
        onnx.save(model, path.with_suffix(f".{planted}.onnx"))
        report = verify(compressed_int4, path.with_suffix(f".{planted}.onnx"), X)
        assert not report.passed
        decoded = {check.name: (check.numpy, check.folded, check.unfolded) for check in report.weights}
        right = planted == "sums"
        assert decoded["fc.weight"] == (True, right, right)
        assert decoded["conv.weight"] == (True, True, True)
        assert not any(check.passed for check in report.runtimes if check.setting != "default")


@pytest.mark.usefixtures("quick")
def test_kernels_that_do_not_run_are_found(
    compressed: mq.CompressedModel, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a version of onnxruntime does not fuse: equal outputs, but not what was promised."""
    whole = PythonRuntime.measure  # of the fixture

    def without_kernels(own: PythonRuntime, request: Request) -> Measured:
        found = whole(own, request)
        return replace(found, operators={n: c for n, c in found.operators.items() if n != "MatMulNBits"})

    monkeypatch.setattr(PythonRuntime, "measure", without_kernels)
    report = verify(compressed, files["int8"], X)
    assert not report.passed
    failed = {(check.setting, check.policy) for check in report.runtimes if not check.passed}
    assert failed == {("default", None), ("accuracy-1", None), ("default", "int8")}


Fault = Callable[[onnx.ModelProto], None]
Change = Callable[[NDArray[Any]], NDArray[Any]]


def _change(name: str, change: Change) -> Fault:
    def fault(model: onnx.ModelProto) -> None:
        (tensor,) = [each for each in model.graph.initializer if each.name == name]
        tensor.CopyFrom(numpy_helper.from_array(change(numpy_helper.to_array(tensor).copy()), name))

    return fault


def _first(change: Callable[[Any], Any]) -> Change:
    def changed(array: NDArray[Any]) -> NDArray[Any]:
        flat = array.reshape(-1)
        flat[0] = change(flat[0])
        return flat.reshape(array.shape)

    return changed


WEIGHT_FAULTS = {
    "one-bit-of-a-code": ("fc.weight", _change("fc.weight.packed", _first(lambda byte: byte ^ 1))),
    "one-step": (
        "conv.weight",
        _change("conv.weight.step", _first(lambda step: float(np.nextafter(step, np.float32(9))))),
    ),
    "one-scale": ("fc.weight", _change("fc.weight.scale", _first(lambda step: step * 2))),
    "mu": ("head.weight", _change("head.weight.mu", lambda mu: mu * 10)),
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fault", WEIGHT_FAULTS)
def test_a_changed_weight_fails(
    fault: str, compressed: mq.CompressedModel, files: dict[str, Path], tmp_path: Path
) -> None:
    model = onnx.load(files["int8"])
    name, plant = WEIGHT_FAULTS[fault]
    plant(model)
    onnx.save(model, tmp_path / "model.onnx")
    report = verify(compressed, tmp_path / "model.onnx", X)
    assert not report.passed
    for check in report.weights:
        assert (check.numpy, check.folded, check.unfolded) == ((check.name != name,) * 3), check.name


def _rewire_decoder(model: onnx.ModelProto) -> None:
    """What decodes is at fault, the stored parts are right: numpy alone would not see it."""
    (constant,) = [node for node in model.graph.node if node.output[0] == "companded_max"]
    constant.attribute[0].t.CopyFrom(numpy_helper.from_array(np.array(125.0)))


@pytest.mark.usefixtures("quick")
def test_a_changed_decoder_fails(
    compressed: mq.CompressedModel, files: dict[str, Path], tmp_path: Path
) -> None:
    model = onnx.load(files["float"])
    _rewire_decoder(model)
    onnx.save(model, tmp_path / "model.onnx")
    for check in check_weights(compressed, tmp_path / "model.onnx"):
        assert (check.numpy, check.folded, check.unfolded) == (True, False, False)


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("change", [lambda bias: bias + 0.01, lambda bias: bias * np.float32(np.nan)])
def test_a_changed_bias_fails(
    change: Callable[[float], float], compressed: mq.CompressedModel, files: dict[str, Path], tmp_path: Path
) -> None:
    model = onnx.load(files["int8"])
    _change("head.bias", _first(change))(model)
    onnx.save(model, tmp_path / "model.onnx")
    report = verify(compressed, tmp_path / "model.onnx", X)
    assert all(check.passed for check in report.weights)
    assert not report.passed
    assert not any(check.passed for check in report.runtimes if check.setting != "default")


def _metadata(change: Callable[[dict], object]) -> Fault:  # type: ignore[type-arg]
    def fault(model: onnx.ModelProto) -> None:
        document = json.loads(model.metadata_props[0].value)
        model.metadata_props[0].value = json.dumps(change(document) or document)

    return fault


UNUSABLE: dict[str, tuple[Fault, str]] = {
    "no-metadata": (lambda model: model.ClearField("metadata_props"), "without compressed weights"),
    "metadata-not-json": (lambda model: setattr(model.metadata_props[0], "value", "{"), "malformed"),
    "metadata-a-list": (_metadata(lambda document: [1]), "malformed"),
    "no-weights": (_metadata(lambda document: document.pop("weights") and None), "malformed"),
    "newer": (_metadata(lambda document: document.update(format=3)), "format 3"),
    "other-names": (
        _metadata(lambda document: document["weights"].pop("fc.weight") and None),
        "other weights",
    ),
    "entry-a-list": (
        _metadata(lambda document: document["weights"].update({"fc.weight": []})),
        "malformed .fc.weight is no object",
    ),
    "no-bits": (
        _metadata(lambda document: document["weights"]["fc.weight"].pop("bits") and None),
        "malformed .fc.weight: bits is None",
    ),
    "bits-of-text": (
        _metadata(lambda document: document["weights"]["fc.weight"].update(bits="3")),
        "malformed .fc.weight: bits is '3'",
    ),
    "mu-of-text": (
        _metadata(lambda document: document["weights"]["fc.weight"].update(mu="large")),
        "malformed .fc.weight: mu is 'large'",
    ),
    "shape-of-text": (
        _metadata(lambda document: document["weights"]["fc.weight"].update(shape=["a"])),
        "malformed .fc.weight: shape is ",
    ),
    "other-levels": (
        _metadata(lambda document: document["weights"]["fc.weight"].update(levels="x")),
        "parts of fc.weight",
    ),
    "groups-of-none": (
        _metadata(lambda document: document["weights"]["fc.weight"].update(granularity="group:0")),
        "parts of fc.weight",
    ),
    "axis-too-large": (
        _metadata(lambda document: document["weights"]["fc.weight"].update(channel_axis=7)),
        r"malformed .fc.weight: channel axes \[7\] of a weight of shape",
    ),
    "axis-of-text": (
        _metadata(lambda document: document["weights"]["fc.weight"].update(channel_axis="0")),
        "malformed .fc.weight: channel_axis is '0'",
    ),
    "axes-not-ascending": (
        _metadata(lambda document: document["weights"]["fc.weight"].update(channel_axis=[1, 0])),
        r"malformed .fc.weight: channel axes \[1, 0\]; expected ascending",
    ),
    "no-axes": (
        _metadata(lambda document: document["weights"]["fc.weight"].update(channel_axis=[])),
        "malformed .fc.weight: no channel axes",
    ),
    "groups-that-do-not-divide": (
        _metadata(
            lambda document: document["weights"]["fc.weight"].update(channel_axis=[1], channel_groups=7)
        ),
        "malformed .fc.weight: 7 groups of a weight of shape",
    ),
    "groups-of-a-channel-axis": (
        _metadata(
            lambda document: document["weights"]["fc.weight"].update(channel_axis=[0], channel_groups=2)
        ),
        r"malformed .fc.weight: channel axes \[0\]; expected ascending numbers from 1 up",
    ),
    "groups-of-text": (
        _metadata(lambda document: document["weights"]["fc.weight"].update(channel_groups="2")),
        "malformed .fc.weight: channel_groups is '2'",
    ),
    "missing-bytes": (_change("fc.weight.packed", lambda packed: packed[:-3]), "parts of fc.weight"),
    "another-shape": (_change("fc.weight.shape", lambda shape: shape + 1), "cannot decode"),
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("fault", UNUSABLE)
def test_an_unusable_file_is_refused(
    fault: str, compressed: mq.CompressedModel, files: dict[str, Path], tmp_path: Path
) -> None:
    model = onnx.load(files["float"])
    plant, message = UNUSABLE[fault]
    plant(model)
    path = tmp_path / "model.onnx"
    onnx.save(model, path)
    with pytest.raises(mq.InputError, match=message) as caught:
        verify(compressed, path, X)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_no_onnx_file_is_refused(
    compressed: mq.CompressedModel, files: dict[str, Path], tmp_path: Path
) -> None:
    path, whole = tmp_path / "model.onnx", files["float"].read_bytes()
    contents = [b"", b"text", b"\x00" * 100, *(whole[: len(whole) * i // 13] for i in range(1, 13))]
    for content in contents:
        path.write_bytes(content)
        with pytest.raises(mq.InputError, match=re.escape(str(path))):
            verify(compressed, path, X)
    for missing in (tmp_path, tmp_path / "none.onnx"):
        with pytest.raises(mq.InputError, match=f"cannot read {re.escape(str(missing))}"):
            verify(compressed, missing, X)
        with pytest.raises(mq.InputError, match="cannot read"):
            load_session(missing)


@pytest.mark.usefixtures("quick")
def test_a_file_of_another_model_is_refused(
    compressed: mq.CompressedModel, files: dict[str, Path], tmp_path: Path
) -> None:
    other = mq.compress(nn.Linear(8, 4), mq.MuLawSpec(mu=20.0))
    with pytest.raises(mq.InputError, match="other weights than the model"):
        verify(other, files["float"], torch.randn(2, 8))
    wider = mq.compress(Net(48), mq.MuLawSpec(mu=20.0), observer="absmax")  # equal names, other shapes
    assert not verify(wider, files["float"], X).passed
    export_float(compressed.module, tmp_path / "float.onnx", X[:2])
    with pytest.raises(mq.InputError, match="without compressed weights"):
        decode_file(tmp_path / "float.onnx")


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (X[:, :2], "does not run on inputs of shape"),
        ((X, X), "does not run on inputs|takes 1 inputs"),
        ((), "at least one"),
        (X[:0], "at least one"),
        ((X, X[:3]), "as many of each"),
        (torch.tensor(1.0), "at least one"),
    ],
    ids=["shape", "two", "none", "empty", "uneven", "scalar"],
)
def test_other_inputs_are_refused(
    inputs: Tensor | tuple[Tensor, ...], message: str, compressed: mq.CompressedModel, files: dict[str, Path]
) -> None:
    with pytest.raises(mq.InputError, match=message):
        verify(compressed, files["float"], inputs)


@pytest.mark.usefixtures("quick")
def test_no_batch_is_refused(compressed: mq.CompressedModel, files: dict[str, Path]) -> None:
    with pytest.raises(mq.InputError, match="batch size is 0"):
        verify(compressed, files["float"], X, batch_size=0)


def test_sessions_refuse_what_they_cannot_load(tmp_path: Path, files: dict[str, Path]) -> None:
    with pytest.raises(mq.InputError, match="setting 'fast' is unknown; expected one of default"):
        load_session(files["float"], "fast")
    path = tmp_path / "text.onnx"
    path.write_text("not ONNX")
    with pytest.raises(mq.InputError, match="onnxruntime cannot load"):
        load_session(path)
    with pytest.raises(mq.InputError, match="onnxruntime cannot load"):
        running_operators(path)
