"""Accuracy under corruptions, by a small library in the place of the real one, and by that where it is."""

import sys
from collections.abc import Callable
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from muquant.attacks import TorchTarget
from muquant.base.errors import InputError
from muquant.base.processes import Processes
from muquant.data import Dataset
from muquant.robustness import CORRUPTIONS, BenchmarkSetup, Subject, benchmark, read_kinds
from muquant.robustness.corruptions import SCORED, corrupted, under_corruptions
from muquant.robustness.runner import Sample

Setups = Callable[..., BenchmarkSetup]


def corrupt(
    image: NDArray[np.uint8], severity: int, corruption_name: str, seed: int | None = None
) -> NDArray[np.uint8]:
    """What the library does, but for the corruptions themselves: [H, W, C] -> [H, W, 3]."""
    assert image.dtype == np.uint8
    assert min(image.shape[:2]) >= 32
    wide = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    if corruption_name == "brightness":
        return np.asarray(np.minimum(wide.astype(int) + 20 * severity, 255), np.uint8)
    if corruption_name == "impulse_noise":
        assert seed is not None
        noise = np.random.default_rng(seed).integers(0, 40 * severity, wide.shape)
    elif corruption_name == "fog":
        raise ValueError("no fog\\nat all")
    else:
        noise = np.random.randint(0, 40 * severity, wide.shape)  # noqa: NPY002 - as the library does
    return np.asarray(np.minimum(wide + noise, 255), np.uint8)


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> None:
    module: Any = ModuleType("imagecorruptions")
    module.corrupt = corrupt
    monkeypatch.setitem(sys.modules, "imagecorruptions", module)


@pytest.fixture
def images() -> Tensor:
    return torch.rand(6, 3, 32, 40, generator=torch.Generator().manual_seed(1))


class Bright(nn.Module):
    """Class 1 for images that are brighter than `least` on average, else class 0."""

    def __init__(self, least: float) -> None:
        super().__init__()
        self.least = least

    def forward(self, inputs: Tensor) -> Tensor:
        score = inputs.flatten(1).mean(1) - self.least
        return torch.stack([-score, score], dim=1)


@pytest.mark.usefixtures("library")
def test_images_are_given_as_pixels_and_come_back_as_images(images: Tensor) -> None:
    found = corrupted(images, "brightness", 2, 0)
    pixels = (images * 255).round()
    torch.testing.assert_close(found, (pixels + 40).clamp(max=255) / 255)
    assert corrupted(images[:, :1], "brightness", 2, 0).shape == (6, 1, 32, 40)


@pytest.mark.usefixtures("library")
@pytest.mark.parametrize("kind", ["gaussian_noise", "impulse_noise"])
def test_each_image_has_noise_of_its_own(kind: str, images: Tensor) -> None:
    state: Any = np.random.get_state()  # noqa: NPY002
    same = images[:1].expand(3, -1, -1, -1)
    found = corrupted(same, kind, 3, 0)
    torch.testing.assert_close(corrupted(same, kind, 3, 0), found, rtol=0, atol=0)
    torch.testing.assert_close(corrupted(same[:1], kind, 3, 0), found[:1], rtol=0, atol=0)
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(corrupted(same, kind, 3, 1), found)
    after: Any = np.random.get_state()  # noqa: NPY002
    assert (after[1] == state[1]).all()


@pytest.mark.usefixtures("library")
def test_accuracies_are_those_of_what_the_model_sees(images: Tensor) -> None:
    sample = Sample(images, torch.tensor([0, 1, 0, 1, 0, 1]), 2)
    target = TorchTarget(Bright(0.6))
    heard: list[tuple[str, int, int]] = []
    kinds = ("brightness", "gaussian_noise")
    found = under_corruptions({"a": target}, sample, kinds, 0, Processes(), lambda *at: heard.append(at))["a"]
    assert heard == [("corruptions", number, 10) for number in range(1, 11)]
    right = {}
    for kind in kinds:
        for severity in range(1, 6):
            means = corrupted(images, kind, severity, 0).flatten(1).mean(1).numpy()
            right[kind, severity] = (means > 0.6) == sample.labels.numpy()
            assert found.accuracy[kind][severity - 1] == right[kind, severity].mean()
    by_image = np.mean(list(right.values()), axis=0)
    assert 0 < by_image.mean() < 1
    assert found.mean == pytest.approx(by_image.mean())
    half = 1.96 * by_image.std() / np.sqrt(6)
    expected = max(by_image.mean() - half, 0), min(by_image.mean() + half, 1)
    assert found.interval == pytest.approx(expected, abs=1e-3)
    assert found.count == 6


def test_kinds_by_name() -> None:
    assert read_kinds("all") == SCORED
    assert len(SCORED) == 15
    assert read_kinds("fog, snow,fog") == ("fog", "snow")
    assert read_kinds("saturate") == ("saturate",)
    for text in ("", "haze", "fog,", "all,fog", "Fog"):
        with pytest.raises(
            InputError, match=r"is unknown; expected all, or some of gaussian_noise, shot_noise"
        ):
            read_kinds(text)


@pytest.mark.usefixtures("library")
def test_what_the_library_cannot_compute_is_one_line(images: Tensor) -> None:
    with pytest.raises(InputError, match="could not compute fog: no fog") as caught:
        corrupted(images, "fog", 1, 0)
    assert "\n" not in str(caught.value)


def test_without_the_library_the_line_says_what_to_install(
    net: nn.Module, quarters: Dataset, setup: Setups, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "imagecorruptions", None)
    with pytest.raises(InputError, match=r"corruptions need .*pip install 'muquant\[corruptions\]'"):
        benchmark([Subject("net", net)], quarters, setup(corruptions=("fog",)))


@pytest.mark.usefixtures("library")
def test_images_that_are_too_small_are_refused(net: nn.Module, quarters: Dataset, setup: Setups) -> None:
    with pytest.raises(InputError, match=r"32 x 32 pixels or more, found \[1, 8, 8\]; leave them out"):
        benchmark([Subject("net", net)], quarters, setup(corruptions=("fog",)))


@pytest.mark.usefixtures("library")
@pytest.mark.slow
def test_a_benchmark_states_them_apart(setup: Setups) -> None:
    pixels = torch.randint(0, 256, (20, 1, 32, 32), generator=torch.Generator().manual_seed(2)).byte()
    labels = torch.tensor([0, 1] * 10)
    pixels[labels == 0] //= 2
    data = Dataset("shades", "test", pixels, labels, ("dark", "bright"))
    module = Bright(0.4)

    def session(images: NDArray[np.float32]) -> NDArray[Any]:
        return module(torch.from_numpy(images)).numpy()  # type: ignore[no-any-return]

    subject = Subject("net", module, session, file="abc")
    made = setup(suite="square:queries=5", limit=None, corruptions=("brightness", "impulse_noise"))
    torch_row, onnx_row = benchmark([subject], data, made)[0].models
    assert torch_row.corruptions is not None
    assert torch_row.corruptions == onnx_row.corruptions
    assert torch_row.corruptions.accuracy["brightness"][0] == 1
    assert torch_row.corruptions.accuracy["brightness"][4] == 0.5
    (bare, _) = benchmark([subject], data, replace(made, corruptions=()))[0].models
    assert bare.corruptions is None
    assert (bare.worst_case, bare.clean) == (torch_row.worst_case, torch_row.clean)


@pytest.mark.slow
def test_the_real_library_computes_every_kind(images: Tensor) -> None:
    pytest.importorskip("imagecorruptions", reason="the library is optional")
    whole = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    for kind in CORRUPTIONS:
        found = corrupted(whole, kind, 3, 0)
        assert found.shape == whole.shape
        assert 0 <= float(found.min()) <= float(found.max()) <= 1
        assert not torch.equal(found, whole)
        torch.testing.assert_close(corrupted(whole[:1], kind, 3, 0), found[:1], rtol=0, atol=0)
    assert corrupted(images[:, :1], "fog", 1, 0).shape == (6, 1, 32, 40)
