from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch

from muquant.data import DATASETS, Dataset, DatasetEntry, DatasetRequest
from muquant.training import METHODS, Batch, BatchLoss, Method, TrainingConfig
from muquant.training.options.config import METHOD_OPTIONS


@pytest.fixture(autouse=True)
def tiny_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """A data set called "tiny": 60 and 20 images of 8x8 pixels in three classes, told apart by brightness."""
    monkeypatch.setitem(DATASETS, "tiny", DatasetEntry(load_tiny))


def load_tiny(request: DatasetRequest) -> Dataset:
    count = 60 if request.split == "train" else 20
    generator = torch.Generator().manual_seed(count)
    labels = torch.arange(count) % 3
    noise = torch.randint(80, (count, 1, 8, 8), generator=generator)
    images = (labels[:, None, None, None] * 85 + noise).to(torch.uint8)
    return Dataset(request.name, request.split, images, labels, ("dark", "grey", "bright"))


TINY = TrainingConfig(data="tiny", model="cnn4-small", epochs=3, batch_size=8, device="cpu")
"""Six steps an epoch: 54 images are trained on and 6 are held out."""


@pytest.fixture
def tiny() -> Callable[..., TrainingConfig]:
    """`tiny(epochs=2)` is the usual configuration with one field changed."""
    return partial(replace, TINY)


def method_of(loss: Callable[[Batch], BatchLoss]) -> type[Method]:
    """A training method with this loss, and nothing else."""

    class OnlyLoss(Method):
        def loss(self, batch: Batch) -> BatchLoss:
            return loss(batch)

    return OnlyLoss


def plug_in(monkeypatch: pytest.MonkeyPatch, name: str, method: type[Method]) -> None:
    """Add a training method without options for the rest of the test."""
    monkeypatch.setitem(METHODS, name, method)
    monkeypatch.setitem(METHOD_OPTIONS, name, None)
