"""Small networks."""

from pathlib import Path

import pytest
import torch
from torch import nn

from muquant_onnx import export_float

SHAPE = 1, 8, 8


@pytest.fixture
def network() -> nn.Module:
    """A classifier [N, 1, 8, 8] -> [N, 4]."""
    return make_network()


def make_network() -> nn.Module:
    """Return one, always the same."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4)).eval()


@pytest.fixture
def images() -> torch.Tensor:
    """Inputs [16, 1, 8, 8] in [0, 1]."""
    return torch.rand(16, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def float_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Such a network as an ordinary ONNX file."""
    path = tmp_path_factory.mktemp("onnx") / "float.onnx"
    export_float(make_network(), path, torch.rand(4, *SHAPE))
    return path
