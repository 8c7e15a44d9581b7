"""Which runtimes run a file, and what is made of what their processes find."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import load_file, save_file

import muquant as mq
from muquant_onnx import compress_onnx
from muquant_onnx.serving.serve import Kernels
from muquant_onnx.verification import runtimes
from muquant_onnx.verification.runners.runtime import Measured, Request, Runtime, Way
from muquant_onnx.verification.runtimes import Answers, RuntimeCheck, RuntimeChecks, check_runtimes

Array = NDArray[Any]
X = np.arange(8, dtype=np.float32).reshape(4, 2)
LOGITS = np.array([[1.0, 2.0], [3.0, 0.0], [0.0, 5.0], [10.0, 1.0]], np.float32)


@dataclass
class Fake(Runtime):
    """Answers what it is told, and keeps what it was asked."""

    outputs: Callable[[Mapping[str, Array]], Sequence[Array]] = lambda _: [LOGITS]
    line: str = ""
    count: int = 1
    failed: str = ""
    settings: Mapping[str, bool] = field(default_factory=lambda: {"default": False, "fast": True})
    promised: int | None = None
    operators: Mapping[str, int] = field(default_factory=dict)
    asked: list[Request] = field(default_factory=list)

    def missing(self) -> str:
        return self.line

    def version(self) -> str:
        return "1.2.3"

    def kernels(self, way: Way, promised: Callable[[str | None], Kernels]) -> int | None:
        return self.promised

    def measure(self, request: Request) -> Measured:
        self.asked.append(request)
        if self.failed:
            return Measured(self.failed)
        for number, file in enumerate(request.feeds):
            arrays = {str(place): array for place, array in enumerate(self.outputs(load_file(file)))}
            save_file(arrays, Path(request.outputs, f"{number}.safetensors"))
        return Measured("", self.count, 0.5, 300, 200, 100, {1: 0.25}, self.operators)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of one product, and what `compress_onnx` makes of it."""
    folder = tmp_path_factory.mktemp("files")
    weight = numpy_helper.from_array(np.random.default_rng(0).standard_normal((2, 2)).astype(np.float32), "w")
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy")
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", [x], [y], [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, folder / "float.onnx")
    compress_onnx(folder / "float.onnx", folder / "small.onnx", check=False)
    onnx.save(model, folder / "beside.onnx", save_as_external_data=True, location="tensors", size_threshold=0)
    return folder


def check(
    folder: Path, fakes: Mapping[str, Fake], names: Iterable[str], plain: str = "float.onnx"
) -> RuntimeChecks:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(runtimes, "RUNTIMES", fakes)
        answers = Answers([{"x": X}], [[LOGITS]], {1: {"x": X[:1]}})
        return check_runtimes(folder / "small.onnx", folder / plain, ["float"], answers, list(names))


def only(folder: Path, fake: Fake) -> dict[str, RuntimeCheck]:
    """The checks of one runtime, by setting."""
    return {each.setting: each for each in check(folder, {"fake": fake}, ["fake"]).runtimes}


def test_every_way_runs_once_and_the_float_file_beside_it(folder: Path) -> None:
    fake = Fake()
    found = check(folder, {"fake": fake}, ["fake"])
    names = [(Path(request.path).name, request.way.setting) for request in fake.asked]
    assert names == [("float.onnx", "default"), ("small.onnx", "default"), ("small.onnx", "fast")]
    (beside,) = found.floats
    assert (beside.runtime, beside.version, beside.failed) == ("fake", "1.2.3", "")
    for each, file in [(beside, "float.onnx"), *((each, "small.onnx") for each in found.runtimes)]:
        assert each.cost is not None
        assert (each.cost.nbytes, each.cost.seconds) == ((folder / file).stat().st_size, 0.5)
        assert (each.cost.peak, each.cost.loaded, each.cost.settled) == (300, 200, 100)
        assert each.cost.latency == {1: 0.25}
    assert all(each.passed and each.difference == 0 and each.agreement == 1 for each in found.runtimes)
    assert not any(Path(request.outputs).exists() for request in fake.asked)


def test_processes_are_given_the_inputs_and_the_files_of_tensors(folder: Path) -> None:
    seen: list[Mapping[str, Array]] = []

    def outputs(feed: Mapping[str, Array]) -> Sequence[Array]:
        seen.append(feed)
        return [LOGITS]

    fake = Fake(outputs)
    found = check(folder, {"fake": fake}, ["fake"], "beside.onnx")
    assert all(np.array_equal(feed["x"], X) and list(feed) == ["x"] for feed in seen)
    plain, *rest = fake.asked
    assert plain.external == {"tensors": str(folder / "tensors")}
    assert all(request.external == {} for request in rest)
    (beside,) = found.floats
    assert beside.cost is not None
    sizes = [(folder / name).stat().st_size for name in ("beside.onnx", "tensors")]
    assert beside.cost.nbytes == sum(sizes)


def test_all_means_those_that_are_installed(folder: Path) -> None:
    fakes = {"here": Fake(), "gone": Fake(line="not installed; get it")}
    found = check(folder, fakes, ["all"])
    assert {each.runtime for each in found.runtimes} == {"here"}
    assert found.missing == {"gone": "not installed; get it"}
    assert check(folder, fakes, ["here", "here"]).missing == {}


def test_names_that_cannot_be_used_are_refused(folder: Path) -> None:
    fakes = {"here": Fake(), "gone": Fake(line="not installed; get it")}
    with pytest.raises(mq.InputError, match=r"^runtime gone: not installed; get it$"):
        check(folder, fakes, ["here", "gone"])
    with pytest.raises(mq.InputError, match="runtime 'other' is unknown; expected one of here, gone, all"):
        check(folder, fakes, ["other"])
    assert not fakes["here"].asked


def test_what_does_not_run_fails_and_says_why(folder: Path) -> None:
    found = check(folder, {"fake": Fake(failed="no such operator")}, ["fake"])
    assert [each.failed for each in (*found.floats, *found.runtimes)] == ["no such operator"] * 3
    for each in found.runtimes:
        assert (each.passed, each.difference, each.agreement, each.cost) == (False, np.inf, None, None)
    assert not only(folder, Fake(count=2))["default"].passed
    assert "gives 2 outputs, the model 1" in only(folder, Fake(count=2))["default"].failed


@pytest.mark.parametrize(
    ("outputs", "passed", "passed_rounded"),
    [
        (LOGITS + np.float32(5e-5), True, True),  # 5e-6 of the largest
        (LOGITS + np.float32(5e-4), False, True),
        (LOGITS + np.float32(0.9), False, True),  # labels are what counts
        (LOGITS[:, ::-1].copy(), False, False),
        (LOGITS[:3], False, False),
        (LOGITS * np.float32(np.nan), False, False),
    ],
    ids=["near", "rounded", "shifted", "other-labels", "other-shape", "nan"],
)
def test_outputs_are_as_near_as_the_setting_lets_them(
    outputs: Array, passed: bool, passed_rounded: bool, folder: Path
) -> None:
    found = only(folder, Fake(outputs=lambda _: [outputs]))
    assert (found["default"].passed, found["fast"].passed) == (passed, passed_rounded)


def test_an_output_that_is_no_array_of_numbers_on_one_side_alone_fails(folder: Path) -> None:
    found = only(folder, Fake(outputs=lambda _: []))["fast"]
    assert (found.difference, found.passed) == (np.inf, False)


@pytest.mark.parametrize(
    ("promised", "running", "passed"), [(2, 2, True), (2, 1, False), (0, 2, False), (None, 0, True)]
)
def test_kernels_that_are_promised_have_to_run(
    promised: int | None, running: int, passed: bool, folder: Path
) -> None:
    fake = Fake(promised=promised, operators={"MatMulNBits": running} if running else {})
    found = only(folder, fake)["default"]
    assert (found.passed, found.kernels) == (passed, promised)
    assert found.operators == fake.operators
