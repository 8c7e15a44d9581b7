"""Benchmarks whose attacks aim at a class, and those of models that abstain."""

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from muquant.attacks import PGD, TorchTarget
from muquant.base.errors import InputError
from muquant.data import Dataset
from muquant.robustness import BenchmarkSetup, ImageResults, Subject, at_epsilons, benchmark, write_images
from muquant.robustness.aims import AIMS, aimed, fixed_class
from muquant.robustness.progress import BenchmarkProgress
from muquant.robustness.rendering import to_html, to_markdown
from muquant.robustness.runner import Sample

Setups = Callable[..., BenchmarkSetup]


@pytest.fixture
def sample(quarters: Dataset) -> Sample:
    return Sample.of(quarters, torch.arange(120))


def logits(module: nn.Module, images: Tensor) -> NDArray[np.float64]:
    with torch.no_grad():
        return np.asarray(module(images).double())


def test_the_least_likely_class_is_that_of_the_smallest_logit(net: nn.Module, sample: Sample) -> None:
    found = aimed(sample, "least-likely", TorchTarget(net), 0).target_classes
    assert found is not None
    outputs = logits(net, sample.images)
    assert found.tolist() == outputs.argmin(1).tolist()
    wrong = aimed(
        sample, "least-likely", TorchTarget(nn.Sequential(net, nn.Hardtanh(-1e9, 1e9), Negated())), 0
    )
    assert wrong.target_classes is not None
    assert not bool((wrong.target_classes == sample.labels).any()), "the label is no class to aim at"


class Negated(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return -inputs


def test_a_random_class_is_any_other(net: nn.Module, sample: Sample) -> None:
    first, again, other = (
        aimed(sample, "random", TorchTarget(net), seed).target_classes for seed in (0, 0, 1)
    )
    assert first is not None
    assert again is not None
    assert other is not None
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    shifts = (first - sample.labels) % 4
    assert shifts.bincount(minlength=4)[0] == 0
    assert bool((shifts.bincount(minlength=4)[1:] > 20).all())


def test_the_next_class_and_one_for_all(net: nn.Module, sample: Sample) -> None:
    following = aimed(sample, "next", TorchTarget(net), 0).target_classes
    assert following is not None
    assert following.tolist() == [(label + 1) % 4 for label in sample.labels.tolist()]
    assert aimed(sample, "", TorchTarget(net), 0) is sample
    fixed = aimed(sample, "3", TorchTarget(net), 0).target_classes
    assert fixed is not None
    assert fixed.tolist() == [3] * 120


@pytest.mark.parametrize("rule", ["4", "-1", "cat", "1.0", "99999999999999999999", "least likely", "²"])
def test_no_such_class(rule: str) -> None:
    match = f"target class: expected a class from 0 to 3, or {', '.join(AIMS)}, found '{rule}'"
    with pytest.raises(InputError, match=match):
        fixed_class(rule, 4)


def test_images_of_the_class_itself_are_not_drawn(quarters: Dataset, setup: Setups) -> None:
    whole = setup(target_class="2").draw(quarters)
    assert whole.tolist() == [place for place in range(230) if quarters.labels[place] != 2]
    some = setup(target_class="2", limit=50).draw(quarters)
    assert len(set(some.tolist())) == 50
    assert 2 not in quarters.labels[some].tolist()
    with pytest.raises(InputError, match=r"limit: expected 1 to 173, .* of other classes than 2, found 230"):
        setup(target_class="2", limit=230).draw(quarters)


def test_foolbox_shaped_calls_aim_too(net: nn.Module, sample: Sample) -> None:
    classes = (sample.labels + 2) % 4
    images, _, success = at_epsilons(
        PGD, net, sample.images, sample.labels, epsilons=[0.01, 0.2], target_classes=classes
    )
    for found, reached in zip(images, success, strict=True):
        assert reached.tolist() == (logits(net, found).argmax(1) == classes.numpy()).tolist()
    assert success.sum(1).tolist() == [0, len(sample)]


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["least-likely", "1"])
def test_only_the_class_counts(
    rule: str, net: nn.Module, quarters: Dataset, setup: Setups, tmp_path: Path
) -> None:
    def session(images: NDArray[np.float32]) -> NDArray[Any]:
        return logits(net, torch.from_numpy(images))

    images: list[ImageResults] = []
    subject, made = (
        Subject("net", net, session, file="abc"),
        setup(target_class=rule, limit=40, suite="autoattack"),
    )
    report, pictures = benchmark([subject], quarters, made, on_images=images.append)
    (free, _) = benchmark([subject], quarters, setup(limit=40, suite="autoattack"))[0].models
    table, *examples = write_images(images, tmp_path / "out")
    rows = list(csv.DictReader(table.read_text().splitlines()))
    for row, path, part in zip(report.models, examples, (rows[:40], rows[40:]), strict=True):
        with np.load(path) as arrays:
            seen = logits(net, torch.from_numpy(arrays["adversarial"])).argmax(1)
            fooled = ~arrays["withstands"]
            assert seen[fooled].tolist() == arrays["target_class"][fooled].tolist()
            assert seen[~fooled].tolist() == arrays["label"][~fooled].tolist()
            assert [int(each["target class"]) for each in part] == arrays["target_class"].tolist()
        assert row.worst_case is not None
        assert free.worst_case is not None
        assert row.worst_case == 1 - fooled.mean()
        assert row.worst_case > free.worst_case
        assert (row.checks, row.curves, row.aa_standard, row.verdict) == ((), (), None, "not assessed")
    assert 0 < (report.models[0].worst_case or 0) < 1
    assert report.models[0].worst_case == report.models[1].worst_case
    assert report.to_dict()["threat"]["target_class"] == rule
    heard: list[BenchmarkProgress] = []
    again, _ = benchmark([subject], quarters, made, on_progress=heard.append)
    assert heard == [], "what was kept is believed"
    assert again.models[0].worst_case == report.models[0].worst_case
    words = {"least-likely": "aimed at the least likely class", "1": "aimed at class 1"}[rule]
    for text in (to_markdown(report), to_html(report, pictures)):
        assert words in text
        assert "attacks aimed at classes" in text


class Timid(nn.Module):
    """A net with one more output, above the others for images that are darker than `least` on average."""

    def __init__(self, net: nn.Module, least: float) -> None:
        super().__init__()
        self.net, self.least = net, least

    def forward(self, inputs: Tensor) -> Tensor:
        found = self.net(inputs)
        return torch.cat([found, 1e5 * (self.least - inputs.flatten(1).mean(1, keepdim=True))], dim=1)


@pytest.mark.slow
def test_abstaining_is_neither_right_nor_fooled(
    net: nn.Module, quarters: Dataset, setup: Setups, tmp_path: Path
) -> None:
    means = quarters.inputs().flatten(1).mean(1)
    timid = Timid(net, float(means.median()))

    def session(images: NDArray[np.float32]) -> NDArray[Any]:
        return logits(timid, torch.from_numpy(images))

    images: list[ImageResults] = []
    subjects = [Subject("timid", timid, session, file="abc"), Subject("plain", net)]
    made = setup(reject=True, limit=130)
    report, pictures = benchmark(subjects, quarters, made, on_images=images.append)
    row, file_row, plain = report.models
    drawn = quarters.inputs()[report.data["indices"]]
    rejected = float((logits(timid, drawn).argmax(1) == 4).mean())
    assert 0.3 < rejected < 0.7
    assert row.abstained == file_row.abstained == rejected
    assert row.clean == 1 - rejected
    assert (plain.abstained, plain.clean) == (None, 1)
    for each, found in zip((row, file_row), images[:2], strict=True):
        seen = logits(timid, torch.from_numpy(found.adversarial)).argmax(1)
        assert each.worst_case == float(found.withstands.mean())
        assert (seen[found.withstands] == found.label[found.withstands]).all()
        fooled = np.array([bool(names) for names in found.fooled_by]) & (found.seen == found.label)
        assert ((seen[fooled] != found.label[fooled]) & (seen[fooled] != 4)).all()
        assert 0 < fooled.sum() < len(fooled)
    heard: list[BenchmarkProgress] = []
    benchmark(subjects, quarters, made, on_progress=heard.append)
    assert heard == []
    for text in (to_markdown(report), to_html(report, pictures)):
        assert "A model that abstains is not right" in text
        assert f"timid, PyTorch, abstains on {100 * rejected:.1f}% of the clean images" in text


def test_nothing_abstains(net: nn.Module, quarters: Dataset, setup: Setups) -> None:
    with pytest.raises(
        InputError, match=r"reject: expected a model with 5 outputs, .* found \[4\]; leave it out"
    ):
        benchmark([Subject("net", net)], quarters, setup(reject=True, limit=4))
    with pytest.raises(
        InputError, match=r"expected logits \[2, 5\] .* and one for abstaining, found \[2, 4\]"
    ):
        benchmark([Subject("net", net, abstains=True)], quarters, setup(limit=4))
