"""Steps in 8 bits in a file: decoded bit for bit, and in the way of no integer kernel."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import muquant as mq
from muquant_onnx import export_onnx
from muquant_onnx.serving.serve import served_file
from muquant_onnx.serving.sessions import load_session, running_operators
from muquant_onnx.verification.weights import check_weights

pytestmark = pytest.mark.slow


class Layers(nn.Module):
    """A tied embedding, and layers that are called twice, one of them a convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(128, 64)
        self.wide, self.back = nn.Linear(64, 128), nn.Linear(128, 64)
        self.conv = nn.ConvTranspose1d(64, 64, 3, groups=2, padding=1)
        self.head = nn.Linear(64, 128)
        self.head.weight = self.embedding.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.back(torch.relu(self.wide(self.embedding(tokens))))
        x = self.conv(self.back(self.wide(x)).mT).mT
        output: Tensor = self.head(x)
        return output


@pytest.mark.parametrize("granularity", ["channel", "group:32"])
@pytest.mark.parametrize("policy", ["float", "int8", "int4"])
@pytest.mark.usefixtures("traced_once")
def test_a_file_with_steps_in_8_bits(policy: str, granularity: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module, tokens = Layers().eval(), torch.arange(10).reshape(2, 5)
    found = {}
    for step_bits in (8, 32):
        spec = mq.MuLawSpec(granularity=granularity, step_bits=step_bits, grid="int4")
        compressed = mq.compress(module, spec, flat=True)
        path = tmp_path / f"{step_bits}.onnx"
        export_onnx(compressed, path, tokens, policy)
        assert all(check.passed for check in check_weights(compressed, path))
        for served in (None, "float", "int8", "packed"):
            answer = load_session(path, "accuracy-1", policy=served).run(None, {"tokens": tokens.numpy()})[0]
            torch.testing.assert_close(
                torch.from_numpy(answer), compressed.module(tokens), rtol=1e-3, atol=1e-5
            )
        assert served_file(path, "float", 1).values
        kernels = running_operators(path)
        found[step_bits] = (kernels.get("MatMulNBits", 0), path.stat().st_size)
    assert found[8][0] == found[32][0] == (0 if policy == "float" else 5)
    if granularity == "group:32":
        assert found[32][1] - found[8][1] > 500
