"""Files of an earlier version are still opened, decode to the same bits, and run by every policy."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
import torch

import muquant
from muquant_onnx import decode_file, export_onnx, load_session
from muquant_onnx.serving.sessions import POLICIES, RUNTIME_SETTINGS

pytestmark = pytest.mark.slow
FOLDER = Path(__file__).parent / "data" / "format_1"
WEIGHTS: dict[str, dict[str, Any]] = json.loads((FOLDER / "weights.json").read_text())
OUTPUTS = dict(np.load(FOLDER / "outputs.npz"))
RUNS = {"model.onnx": ("images", "logits"), "graph.onnx": ("ids", "y"), "steps.onnx": ("tokens", "steps_y")}
"""File -> its input and its output in `OUTPUTS`."""


def facts(decoded: dict[str, np.ndarray[Any, Any]]) -> dict[str, Any]:
    return {
        name: {
            "shape": list(weight.shape),
            "sha256": hashlib.sha256(np.ascontiguousarray(weight).tobytes()).hexdigest(),
        }
        for name, weight in decoded.items()
    }


def test_an_artifact_decodes_to_the_same_bits_and_computes_the_same() -> None:
    compressed = muquant.load(FOLDER / "model.mq")
    decoded = {name: tensor.dequantize().numpy() for name, tensor in compressed.tensors.items()}
    assert facts(decoded) == WEIGHTS["model.mq"]
    assert [layer.name for layer in compressed.report] == list(compressed.tensors)
    with torch.inference_mode():
        logits = compressed.module(torch.from_numpy(OUTPUTS["images"])).numpy()
    np.testing.assert_allclose(logits, OUTPUTS["logits"], rtol=0, atol=1e-5 * np.abs(logits).max())


def test_an_artifact_is_exported_as_it_was(tmp_path: Path) -> None:
    compressed = muquant.load(FOLDER / "model.mq")
    path = tmp_path / "model.onnx"
    export_onnx(compressed, path, torch.from_numpy(OUTPUTS["images"][:2]), policy="int4")
    assert facts(decode_file(path)) == WEIGHTS["model.onnx"]


@pytest.mark.parametrize("file", RUNS)
def test_an_onnx_file_decodes_to_the_same_bits(file: str) -> None:
    assert facts(decode_file(FOLDER / file)) == WEIGHTS[file]


@pytest.mark.parametrize("policy", [None, *POLICIES])
@pytest.mark.parametrize("file", RUNS)
def test_an_onnx_file_runs_by_every_policy(file: str, policy: str | None) -> None:
    given, wanted = (OUTPUTS[name] for name in RUNS[file])
    for setting, how in RUNTIME_SETTINGS.items():
        session = load_session(FOLDER / file, setting, policy=policy, threads=1)
        (found,) = session.run(None, {session.get_inputs()[0].name: given})
        tolerance = 0.05 if how.rounds_activations else 1e-5
        atol = tolerance * np.abs(wanted).max()
        np.testing.assert_allclose(found, wanted, rtol=0, atol=atol, err_msg=setting)


@pytest.mark.parametrize("file", RUNS)
def test_stock_onnxruntime_runs_an_onnx_file(file: str) -> None:
    given, wanted = (OUTPUTS[name] for name in RUNS[file])
    session = ort.InferenceSession(str(FOLDER / file), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: given})
    np.testing.assert_allclose(found, wanted, rtol=0, atol=0.05 * np.abs(wanted).max())
