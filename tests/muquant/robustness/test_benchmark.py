"""The whole of a benchmark: one process and two (130 images are two batches), a first run and a second."""

import copy
import csv
import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from muquant.attacks import Norm, TorchTarget
from muquant.base.errors import InputError
from muquant.data import Dataset
from muquant.robustness import (
    BenchmarkSetup,
    ImageResults,
    ModelReport,
    Subject,
    benchmark,
    settings_for,
    write_images,
)
from muquant.robustness.progress import BenchmarkProgress

pytestmark = pytest.mark.slow
Setups = Callable[..., BenchmarkSetup]


def numpy_net(net: nn.Module) -> Callable[[NDArray[np.float32]], NDArray[Any]]:
    """The same logits without gradients, as a runtime gives them."""

    def run(images: NDArray[np.float32]) -> NDArray[Any]:
        with torch.no_grad():
            logits: NDArray[Any] = net(torch.from_numpy(images)).numpy()
        return logits

    return run


def without_times(model: ModelReport) -> dict[str, Any]:
    document = asdict(replace(model, seconds=0))
    for attack in document["attacks"].values():
        attack["seconds"] = 0
    return document


def test_a_report_adds_up(net: nn.Module, quarters: Dataset, setup: Setups) -> None:
    heard: list[BenchmarkProgress] = []
    subject = Subject("net", net, numpy_net(net), bits=32, nbytes=100, file="abc")
    report, pictures = benchmark(
        [subject], quarters, setup(limit=130), on_progress=heard.append, provenance={"command": "x"}
    )
    torch_row, onnx_row = report.models
    assert (torch_row.runtime, onnx_row.runtime) == ("torch", "onnx")
    assert torch_row.clean == onnx_row.clean == 1
    assert list(torch_row.attacks) == ["apgd-ce", "apgd-t", "ddn", "square", "normal-noise", "uniform-noise"]
    searched = [attack.accuracy for attack in torch_row.attacks.values() if not attack.corruption]
    assert torch_row.worst_case is not None
    assert 0 < torch_row.worst_case <= min(value for value in searched if value is not None)
    assert torch_row.worst_case_interval is not None
    low, high = torch_row.worst_case_interval
    assert low < torch_row.worst_case < high

    replayed = {name for name, attack in onnx_row.attacks.items() if attack.source == "replay"}
    assert replayed == {"apgd-ce", "apgd-t", "ddn"}
    for name, attack in onnx_row.attacks.items():
        assert attack.accuracy == torch_row.attacks[name].accuracy
        assert attack.agreement == (1 if name in replayed else None)
    assert onnx_row.attacks["square"].queries == torch_row.attacks["square"].queries
    assert onnx_row.worst_case == torch_row.worst_case
    assert onnx_row.agreement == 1
    assert torch_row.verdict == onnx_row.verdict == "established", torch_row.flags
    assert torch_row.checks
    assert not onnx_row.checks

    assert {picture.attack for picture in pictures} <= set(torch_row.attacks)
    for picture in pictures:
        assert picture.seen_clean == picture.label != picture.seen
        place = quarters.inputs(slice(picture.index, picture.index + 1))[0]
        torch.testing.assert_close(picture.clean, place)
        distance = (picture.perturbed - picture.clean).abs().max()
        assert float(distance) == pytest.approx(picture.linf)
    assert (heard[0].what, heard[0].done, heard[0].total) == ("net (torch) apgd-ce", 100, 130)
    shares = [progress.share for progress in heard]
    assert shares == sorted(shares)
    assert shares[0] < 0.1
    assert shares[-1] == pytest.approx(1, abs=1e-3)
    assert report.to_dict()["command"] == "x"


def by_hand(net: nn.Module, quarters: Dataset, setup: BenchmarkSetup) -> dict[str, Tensor]:
    """Which of 130 images are left after each of AutoAttack's attacks, each on what the one before left."""
    chain = [each for each in setup.attacks() if each.after or each.name == "apgd-ce"]
    rows = setup.draw(quarters)
    left, found = torch.arange(130), {}
    for each in chain:
        images, labels = quarters.inputs(rows[left]), quarters.labels[rows[left]]
        result = each.attack.attack(TorchTarget(net), images, labels, seed=each.seed)
        left = left[result.attacked & ~result.success]
        found[each.name] = left
    return found


def test_autoattack_is_a_chain(net: nn.Module, quarters: Dataset, setup: Setups) -> None:
    made = setup(suite="autoattack", limit=130, settings=settings_for("digits", 0.092))
    expected = by_hand(net, quarters, made)
    subject = Subject("net", net, numpy_net(net), file="abc")
    torch_row, onnx_row = benchmark([subject], quarters, made)[0].models
    counts = [len(rows) for rows in expected.values()]
    assert list(expected) == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert 130 > counts[0] > counts[-1] > 0, "the setting tests nothing"
    for row in (torch_row, onnx_row):
        for name, rows in expected.items():
            assert row.attacks[name].accuracy == len(rows) / 130
            assert row.attacks[name].count == 130
        assert row.attacks["square"].after == ("apgd-ce", "apgd-t", "fab-t")
        assert row.aa_standard == counts[-1] / 130
        assert row.worst_case is not None
        assert row.worst_case <= row.aa_standard
    alone = Subject("file", session=numpy_net(net), file="abc")
    (file_row,) = benchmark([alone], quarters, replace(made, limit=20))[0].models
    assert file_row.aa_standard is None
    assert file_row.attacks["square"].accuracy == file_row.worst_case


def test_a_file_that_withstands_more_is_attacked_where_the_module_was_fooled(
    net: nn.Module, quarters: Dataset, setup: Setups
) -> None:
    """The survivors of a file are its own: Square is run on what replays did not fool it with."""

    class Sharper(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            output: Tensor = net((images - 0.5) * 1.5 + 0.5)
            return output

    made = setup(suite="autoattack", limit=60)
    subject = Subject("net", net, numpy_net(Sharper()), file="abc")
    torch_row, onnx_row = benchmark([subject], quarters, made)[0].models
    left = [row.attacks[name].accuracy or 0 for row in (torch_row, onnx_row) for name in ("fab-t", "square")]
    assert left[2] > left[0], "the setting tests nothing"
    assert left[3] < left[2]
    assert onnx_row.attacks["square"].queries > torch_row.attacks["square"].queries


def test_a_file_alone_gets_no_verdict(net: nn.Module, quarters: Dataset, setup: Setups) -> None:
    subject = Subject("file", session=numpy_net(net), file="abc")
    (row,) = benchmark([subject], quarters, setup(limit=40))[0].models
    for name in ("apgd-ce", "apgd-t", "ddn"):
        attack = row.attacks[name]
        assert (attack.source, attack.accuracy, attack.count) == ("not available", None, 0)
    assert row.attacks["square"].accuracy == row.worst_case
    assert (row.verdict, row.agreement) == ("not assessed", None)


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_the_standard_version_runs_in_every_norm(
    norm: Norm, net: nn.Module, quarters: Dataset, setup: Setups
) -> None:
    made = setup(suite="autoattack", limit=20, settings=settings_for("digits", norm=norm))
    (row,) = benchmark([Subject("net", net)], quarters, made)[0].models
    assert row.worst_case is not None
    assert row.aa_standard is not None
    assert row.worst_case <= row.aa_standard < 1
    assert {attack.norm for attack in row.attacks.values() if not attack.corruption} == {norm}
    assert row.verdict == "established", row.flags


def test_what_became_of_each_image_is_written(
    net: nn.Module, quarters: Dataset, setup: Setups, tmp_path: Path
) -> None:
    images: list[ImageResults] = []
    subject = Subject("a/net", net, numpy_net(net), file="abc")
    report, _ = benchmark([subject], quarters, setup(limit=30), on_images=images.append)
    table, *examples = write_images(images, tmp_path / "out")
    rows = list(csv.DictReader(table.read_text().splitlines()))
    assert [row["runtime"] for row in rows] == ["torch"] * 30 + ["onnx"] * 30
    assert [path.name for path in examples] == ["examples-0-a-net-torch.npz", "examples-1-a-net-onnx.npz"]
    for model, path, part in zip(report.models, examples, (rows[:30], rows[30:]), strict=True):
        assert [int(row["index"]) for row in part] == report.data["indices"]
        left = [row["withstands"] == "1" for row in part]
        assert 0 < sum(left) == round(30 * (model.worst_case or 0)) < 30
        square = sum("square" in row["fooled by"].split() for row in part)
        assert square == 30 - round(30 * (model.attacks["square"].accuracy or 0))
        with np.load(path) as arrays:
            difference = arrays["adversarial"] - arrays["clean"]
            seen = numpy_net(net)(arrays["adversarial"]).argmax(1)
            assert arrays["withstands"].tolist() == left == (seen == arrays["label"]).tolist()
        linf = np.abs(difference).max((1, 2, 3))
        np.testing.assert_allclose([float(row["linf"]) for row in part], linf, rtol=1e-5, atol=1e-7)
        assert linf.max() <= 0.1 + 1e-6


def test_a_second_run_attacks_nothing(net: nn.Module, quarters: Dataset, setup: Setups) -> None:
    subject = Subject("net", net, numpy_net(net), file="abc")
    first, _ = benchmark([subject], quarters, setup(limit=30))
    heard: list[BenchmarkProgress] = []
    second, _ = benchmark([subject], quarters, setup(limit=30), on_progress=heard.append)
    assert heard == []
    assert list(map(without_times, first.models)) == list(map(without_times, second.models))


TWO_PROCESSES = """
import json, sys, torch
from dataclasses import replace
from pathlib import Path
torch.set_num_threads(1)
import lightning_fabric
from muquant.data import Dataset
from muquant.base.processes import join_processes
from muquant.robustness import BenchmarkSetup, Subject, benchmark, settings_for
from safetensors.torch import load_file
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

def work(folder):
    state = load_file(folder / "state.safetensors")
    net = torch.nn.Sequential(
        torch.nn.Conv2d(1, 6, 3, padding=1), torch.nn.Softplus(), torch.nn.AvgPool2d(2),
        torch.nn.Flatten(), torch.nn.Linear(96, 4),
    )
    net.load_state_dict({name: state[name] for name in net.state_dict()})
    data = Dataset("quarters", "test", state["images"], state["labels"], ("nw", "ne", "sw", "se"))
    processes = join_processes("cpu")
    assert processes.count == 2
    settings = replace(settings_for("digits", 0.1), l2_bound=0.6)
    setup = BenchmarkSetup("standard", settings, 130, 0, None, folder / "shared", processes)
    report, _ = benchmark([Subject("net", net.eval())], data, setup)
    if processes.rank == 0:
        (folder / "report.json").write_text(json.dumps(report.to_dict()))

# as torchrun does it, but for two cold starts
config = LaunchConfig(1, 1, 2, rdzv_backend="c10d", rdzv_endpoint="localhost:0", start_method="fork")
elastic_launch(config, work)(Path(sys.argv[1]))
"""


def test_two_processes_report_what_one_does(
    net: nn.Module, quarters: Dataset, setup: Setups, tmp_path: Path
) -> None:
    (alone,) = benchmark([Subject("net", net)], quarters, setup(limit=130))[0].models
    state = {**net.state_dict(), "images": quarters.images, "labels": quarters.labels}
    save_file(state, tmp_path / "state.safetensors")
    command = [sys.executable, "-c", TWO_PROCESSES, str(tmp_path)]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    document = json.loads((tmp_path / "report.json").read_text())
    assert document["processes"] == 2
    (shared,) = document["models"]
    for name, attack in alone.attacks.items():
        other = shared["attacks"][name]
        assert (other["accuracy"], other["queries"]) == (attack.accuracy, attack.queries)
        for distance in ("median_l2", "median_linf"):
            assert other[distance] == pytest.approx(getattr(attack, distance), abs=1e-5)
    assert shared["worst_case"] == alone.worst_case
    assert [check["fired"] for check in shared["checks"]] == [check.fired for check in alone.checks]
    assert [check["value"] for check in shared["checks"]] == pytest.approx(
        [check.value for check in alone.checks], abs=1e-5
    )


class Answering(nn.Module):
    """The same net, with answers in another form and of another type of floats."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.net(images)
        return {"loss": logits.sum(), "logits": logits}


def test_the_form_of_answers_changes_nothing(net: nn.Module, quarters: Dataset, setup: Setups) -> None:
    subjects = [Subject("plain", net), Subject("dict", Answering(net))]
    plain, other = benchmark(subjects, quarters, setup(limit=20))[0].models
    assert without_times(replace(other, name="plain")) == without_times(plain)


def test_a_model_in_bfloat16_is_attacked_and_checked(
    net: nn.Module, quarters: Dataset, setup: Setups
) -> None:
    half = copy.deepcopy(net).bfloat16()
    (row,) = benchmark([Subject("half", Answering(half))], quarters, setup(limit=20))[0].models
    assert row.clean == 1
    assert row.worst_case is not None
    assert {check.check for check in row.checks} >= {"planted-missed", "random-logits"}


def test_a_model_that_draws_numbers_is_attacked_by_its_mean_answer(
    net: nn.Module, quarters: Dataset, setup: Setups
) -> None:
    class Tossed(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            logits: Tensor = net(images)
            return logits + 0.3 * torch.randn(logits.shape)

    torch.manual_seed(0)
    report, _ = benchmark(
        [Subject("tossed", Tossed(), numpy_net(Tossed()))], quarters, setup(limit=40, eot=9)
    )
    assert report.to_dict()["eot"] == 9
    for row in report.models:
        assert row.clean == 1
        assert row.worst_case is not None
    (alone,) = benchmark([Subject("tossed", Tossed())], quarters, setup(limit=40))[0].models
    assert "random-logits" in {flag.check for flag in alone.flags}
    with pytest.raises(InputError, match="eot: expected 1 pass or more, found 0"):
        setup(eot=0)


def test_answers_that_are_no_numbers_are_said(net: nn.Module, quarters: Dataset, setup: Setups) -> None:
    def session(images: NDArray[np.float32]) -> NDArray[Any]:
        logits = numpy_net(net)(images)
        return np.where(images.min((1, 2, 3))[:, None] < 0.15, np.nan, logits)  # of no clean image

    assert np.isfinite(session(quarters.inputs(slice(0, 2)).numpy())).all()
    with pytest.raises(InputError, match="expected finite logits, found NaN or infinity for"):
        benchmark([Subject("net", net, session)], quarters, setup(limit=20))


@pytest.mark.parametrize(
    ("limit", "match"), [(0, "expected 1 to 230"), (231, "expected 1 to 230")], ids=["none", "too many"]
)
def test_a_limit_outside_the_data_is_refused(
    net: nn.Module, quarters: Dataset, setup: Setups, limit: int, match: str
) -> None:
    with pytest.raises(InputError, match=match):
        benchmark([Subject("net", net)], quarters, setup(limit=limit))


class Blind(nn.Linear):
    """Its output has gradients, but not by the images."""

    def forward(self, images: Tensor) -> Tensor:
        return super().forward(images.detach().flatten(1))


@pytest.mark.parametrize(
    ("module", "match"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 5)), r"wrong: expected logits \[2, 4\].*found \[2, 5\]"),
        (nn.Flatten(0), r"found \[128\]"),
        (nn.Linear(9, 4), r"does not take images of shape \[1, 8, 8\]"),
        (
            Blind(64, 4),
            r"wrong: the model's output has no gradient by its input: it does not .*--runtime onnx",
        ),
    ],
    ids=["classes", "shape", "input", "gradient"],
)
def test_a_model_of_other_data_is_refused_before_any_attack(
    net: nn.Module, quarters: Dataset, setup: Setups, module: nn.Module, match: str
) -> None:
    heard: list[BenchmarkProgress] = []
    with pytest.raises(InputError, match=match):
        benchmark(
            [Subject("net", net), Subject("wrong", module)],
            quarters,
            setup(),
            on_progress=heard.append,
        )
    assert heard == []


def test_two_models_of_one_name_are_refused(net: nn.Module, quarters: Dataset, setup: Setups) -> None:
    with pytest.raises(InputError, match="different names"):
        benchmark([Subject("net", net), Subject("net", net)], quarters, setup())
