"""Compressed weights of any module reach the file as codes, or are named with their bytes."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import muquant as mq
from muquant_onnx import export_onnx
from muquant_onnx.verification.weights import check_weights

pytestmark = pytest.mark.slow


class Experts(nn.Module):
    """Einsum, an index, and a product from the left with parameters of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(3, 8, 6))
        self.second = nn.Parameter(torch.randn(3, 6, 8))
        self.last = nn.Parameter(torch.randn(4, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = torch.einsum("bni,eio->bneo", x, self.first)
        return self.last @ sum(x[:, :, place] @ self.second[place] for place in range(3))


class First(nn.Module):
    """The first of what a module returns."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x)[0]  # type: ignore[no-any-return]


class Kept(nn.Module):
    """Reaches its weights by a list, which no attribute shows."""

    def __init__(self, use: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.fc, self.use = nn.Linear(8, 8), use
        self.kept = [self.fc.weight]

    def forward(self, x: Tensor) -> Tensor:
        return self.use(x, self.kept[0])


class Tied(nn.Module):
    """A parameter of its own that is the table of its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8)
        self.out = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.embed(ids) @ self.out.T  # type: ignore[no-any-return]


X, IDS = torch.randn(4, 5, 8), torch.randint(0, 20, (4, 5))
MODULES: dict[str, tuple[Callable[[], nn.Module], Tensor]] = {
    "experts": (Experts, X),
    "LSTM": (lambda: First(nn.LSTM(8, 6, 2, batch_first=True, bidirectional=True)), X),
    "GRU": (lambda: First(nn.GRU(8, 6, batch_first=True)), X),
    "RNN": (lambda: First(nn.RNN(8, 6, batch_first=True)), X),
    "a cell": (lambda: nn.GRUCell(8, 6), X[:, 0]),
    "a bag": (lambda: nn.EmbeddingBag(20, 6), IDS),
    "kept": (lambda: Kept(lambda x, weight: x @ weight), X),
    "kept, turned": (lambda: Kept(lambda x, weight: x @ weight.T), X),
    "tied": (Tied, IDS),
}


def floats(path: Path) -> int:
    """Bytes of matrices of floats in a file."""
    tensors = onnx.load(path).graph.initializer
    return sum(
        onnx.numpy_helper.to_array(each).nbytes for each in tensors if each.data_type == 1 and each.dims
    )


@pytest.mark.parametrize(("build", "x"), MODULES.values(), ids=MODULES.keys())
def test_the_file_has_codes_and_computes_the_same(
    build: Callable[[], nn.Module], x: Tensor, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    compressed = mq.compress(build(), mq.MuLawSpec(4, granularity="tensor"), observer="absmax", example=x)
    assert not [left.name for left in compressed.left_alone if len(left.shape) > 1]
    path = tmp_path / "m.onnx"
    report = export_onnx(compressed, path, x)
    assert report.left_float == ()
    assert {use.weight for use in report.served} == set(compressed.tensors)
    assert all(check.passed for check in check_weights(compressed, path))
    biases = sum(left.nbytes for left in compressed.left_alone)
    assert floats(path) <= 2 * biases + 200  # recurrent operators take them padded
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found, *_) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        wanted = compressed.module(x)
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-4, atol=1e-5)


def test_what_no_placeholder_reaches_is_named_with_its_bytes(tmp_path: Path) -> None:
    model: Any = Kept(lambda x, weight: x + weight.flatten()[torch.arange(63, -1, -1)].reshape(8, 8))
    compressed = mq.compress(model)
    report = export_onnx(compressed, tmp_path / "m.onnx", torch.randn(8, 8))
    (left,) = report.left_float
    assert (left.name, left.shape, left.nbytes) == ("fc.weight", (8, 8), 256)
    assert check_weights(compressed, tmp_path / "m.onnx") == ()
