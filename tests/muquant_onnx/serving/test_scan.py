"""Products that decode their weights a block at a time."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

import muquant as mq
import muquant_onnx.serving.scan as module
from muquant_onnx import export_onnx, load_session

pytestmark = pytest.mark.slow
Array = NDArray[Any]


class Mixed(nn.Module):
    """A table that is an output layer too, a product without bias, and one of three axes with a bias."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(48, 32)
        self.up, self.down = nn.Linear(32, 64), nn.Linear(64, 32, bias=False)
        self.head = nn.Linear(32, 48)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embedding(tokens)
        x = x + self.down(torch.relu(self.up(x)))
        return self.head(x)  # type: ignore[no-any-return]


def operators(path: Path) -> Counter[str]:
    return Counter(node.op_type for node in onnx.load(path, load_external_data=False).graph.node)


def check(model: nn.Module, x: Tensor, spec: mq.MuLawSpec, folder: Path) -> Counter[str]:
    """Compare with PyTorch, at two batch sizes, and return what runs."""
    compressed = mq.compress(model, spec)
    export_onnx(compressed, folder / "model.onnx", x)
    session = load_session(folder / "model.onnx", policy="packed", optimized_path=folder / "opt.onnx")
    for rows in (x, x[:1]):
        with torch.inference_mode():
            wanted = compressed.module(rows).numpy()
        (found,) = session.run(None, {session.get_inputs()[0].name: rows.numpy()})
        np.testing.assert_allclose(
            found, wanted, rtol=0, atol=1e-5 * np.abs(wanted).max(), err_msg=f"{spec}, {len(rows)} rows"
        )
    return operators(folder / "opt.onnx")


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 512)


@pytest.mark.usefixtures("traced_once")
def test_blocks_make_the_same_product(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Mixed()
    for bits in (2, 3, 5, 8):
        for granularity in ("tensor", "channel", "group:16"):
            spec = mq.MuLawSpec(bits, granularity=granularity)
            assert check(model, torch.randint(48, (3, 7)), spec, tmp_path)["Scan"] == 3, spec


def test_rows_with_a_bias(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(40, 64), nn.ReLU(), nn.Linear(64, 64), nn.Sigmoid())
    assert check(model, torch.randn(5, 40), mq.MuLawSpec(), tmp_path)["Scan"] == 2


@pytest.mark.parametrize(
    ("inputs", "outputs", "granularity"),
    [(33, 61, "channel"), (32, 48, "group:24"), (1024, 3, "channel")],
    ids=["rows end within bytes", "a short group", "a row is more than a block"],
)
def test_what_has_no_blocks_is_decoded_as_a_whole(
    inputs: int, outputs: int, granularity: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(inputs, outputs))
    assert not check(model, torch.randn(5, inputs), mq.MuLawSpec(granularity=granularity), tmp_path)["Scan"]


def test_convolutions_are_decoded_while_they_run(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(32, 32)).eval()
    found = check(model, torch.randn(5, 2, 4, 4), mq.MuLawSpec(), tmp_path)
    assert found["Scan"] == 1
    assert found["Tanh"]  # of the decoder
