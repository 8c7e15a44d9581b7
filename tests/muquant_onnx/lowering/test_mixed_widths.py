"""One model with a weight of every width: what the file decodes and computes, in real sessions."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from torch import nn

import muquant as mq
from muquant_onnx import export_onnx
from muquant_onnx.verification.weights import check_weights

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def compressed() -> mq.CompressedModel:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 4, 3),
        nn.Flatten(),
        *(nn.Sequential(nn.Linear(16 * 4, 16 * 4), nn.ReLU()) for _ in range(6)),
    )
    widths = {"^0$": 8, **{rf"^{place + 2}\.0$": place + 2 for place in range(6)}}
    mixed = mq.compress(model, overrides=widths)
    assert [tensor.spec.bits for tensor in mixed.tensors.values()] == [8, 2, 3, 4, 5, 6, 7]
    return mixed


@pytest.mark.parametrize("policy", ["float", "int8"])
def test_every_width_is_decoded_and_served_beside_the_others(
    policy: str, compressed: mq.CompressedModel, tmp_path: Path
) -> None:
    path = tmp_path / "mixed.onnx"
    images = torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    report = export_onnx(compressed, path, images[:2], policy)
    forms = {use.weight: use.form for use in report.served}
    narrow = [name for name, tensor in compressed.tensors.items() if tensor.spec.bits <= 6]
    assert [name for name in forms if forms[name] == "int8"] == (narrow if policy == "int8" else [])
    assert not onnx.load(path).functions
    export_onnx(compressed, tmp_path / "functions.onnx", images[:2], policy, functions=True)
    functions = {function.name for function in onnx.load(tmp_path / "functions.onnx").functions}
    wide = {f"MuLawTables{bits}Int16Codes" for bits in (7, 8)}
    narrow_kinds = {f"MuLawTables{bits}Codes" for bits in range(2, 7)}
    assert functions == wide | narrow_kinds | {f"Words{bits}Codes" for bits in range(2, 9)}
    for file in (path, tmp_path / "functions.onnx"):
        assert all(check.passed for check in check_weights(compressed, file))
        session: Any = ort.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        found = session.run(None, {session.get_inputs()[0].name: images.numpy()})[0]
        with torch.inference_mode():
            expected = compressed.module(images).numpy()
        tolerance = 1e-5 if policy == "float" else 5e-2  # the 8-bit kernel rounds activations in five layers
        np.testing.assert_allclose(found, expected, atol=tolerance * np.abs(expected).max(), rtol=0)
