"""Modules in other precisions than float32, with inputs of theirs: compressed and exported as float32."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime as ort
import pytest
import torch
from torch import Tensor, nn

import muquant as mq
from muquant_onnx import export_onnx, verify

pytestmark = pytest.mark.slow

NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Sequential(nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 8)), (4, 32)),
    "convolution": (lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Flatten()), (4, 3, 6, 6)),
    "own parameter": (lambda: Times(), (4, 16)),
    "attention": (lambda: nn.TransformerEncoderLayer(32, 4, 64, batch_first=True), (2, 5, 32)),
}


class Times(nn.Module):
    """Multiplies by a parameter of its own, which only an example shows."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(16, 12))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.matrix


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize(
    ("net", "dtype"),
    [
        ("linear", torch.bfloat16),
        ("convolution", torch.float64),
        ("own parameter", torch.float16),
        ("attention", torch.float16),
        ("attention", torch.float64),
    ],
)
def test_a_module_in_another_precision_is_taken_with_inputs_of_its_own(
    net: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    make, shape = NETS[net]
    module = make().eval().to(dtype)
    x = torch.randn(shape, dtype=dtype)
    compressed = mq.compress(module, mq.MuLawSpec(8), example=x)
    export_onnx(compressed, tmp_path / "m.onnx", x, policy="float")
    session = ort.InferenceSession(tmp_path / "m.onnx")
    (found,) = session.run(None, {session.get_inputs()[0].name: x.float().numpy()})
    with torch.no_grad():
        wanted = module(x).double().numpy()
    assert 10 * np.log10(np.square(wanted).sum() / np.square(wanted - found).sum()) > 35
    assert verify(compressed, tmp_path / "m.onnx", x).passed
    assert module(x).dtype == dtype
