"""A tiny data set of four classes, nets that are trained on it in a moment, and a benchmark of them."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from muquant.data import Dataset
from muquant.robustness import BenchmarkSetup, settings_for


def make_images(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Noisy uint8 images [1, 8, 8], each with a bright quarter that is its class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 4
    images = 0.2 + 0.2 * torch.rand(count, 1, 8, 8, generator=generator)
    for number, label in enumerate(labels.tolist()):
        top, left = 4 * (label // 2), 4 * (label % 2)
        images[number, 0, top : top + 4, left : left + 4] += 0.25
    return (255 * images).to(torch.uint8), labels


@pytest.fixture(scope="session")
def quarters() -> Dataset:
    """230 images: three batches, the last of them short."""
    return Dataset("quarters", "test", *make_images(230, 5), ("nw", "ne", "sw", "se"))


@pytest.fixture(scope="session")
def net(quarters: Dataset) -> nn.Module:
    """A small smooth net without a mistake on `quarters`."""
    images, labels = quarters.inputs(), quarters.labels
    with torch.random.fork_rng():
        torch.manual_seed(3)
        module = nn.Sequential(
            nn.Conv2d(1, 6, 3, padding=1), nn.Softplus(), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(96, 4)
        )
        optimizer = torch.optim.Adam(module.parameters(), lr=0.02)
        for _ in range(60):
            optimizer.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(module(images), labels))
            optimizer.step()
    assert bool((module.eval()(images).argmax(1) == labels).all())
    return module


@pytest.fixture
def setup(tmp_path: Path) -> Callable[..., BenchmarkSetup]:
    """Makes a setup of the standard suite at an epsilon that leaves some images standing."""

    def make(**changes: object) -> BenchmarkSetup:
        settings = replace(settings_for("digits", 0.1), l2_bound=0.6)
        usual = BenchmarkSetup("standard", settings, limit=None, folder=tmp_path / "attacks")
        return replace(usual, **changes)  # type: ignore[arg-type]

    return make
