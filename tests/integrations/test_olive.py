"""The pass under Olive's own engine: ONNX in, ONNX out."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from muquant_onnx import compress_onnx, decode_file

olive = pytest.importorskip("olive", reason="needs olive-ai: make test-integrations")
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

DATA = """
import torch
from olive.data.registry import Registry

class Samples(torch.utils.data.Dataset):
    def __len__(self):
        return 16

    def __getitem__(self, index):
        image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(index))
        return {NAME: image}, index % 4

@Registry.register_dataset()
def samples(**_):
    return Samples()
"""


def run(folder: Path, model: Path, **parameters: Any) -> Path:
    """Run a workflow of the pass alone, and return the model that comes out."""
    from muquant_integrations import package_config

    data = parameters.pop("data_configs", [])
    workflow = {
        "input_model": {"type": "OnnxModel", "model_path": str(model)},
        "data_configs": data,
        "passes": {"compress": {"type": "MuLawCompression", **parameters}},
        "output_dir": str(folder / "out"),
        "cache_dir": str(folder / "cache"),
        "log_severity_level": 4,
    }
    output = olive.run(workflow, package_config=package_config())
    return Path(output.get_best_candidate().model_path)


def same_weights(one: Path, other: Path) -> bool:
    found, wanted = decode_file(one), decode_file(other)
    return found.keys() == wanted.keys() and all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_the_pass_is_compress_onnx(float_file: Path, tmp_path: Path) -> None:
    from muquant import MuLawSpec

    result = run(tmp_path, float_file, bits=4, granularity="group:32", flat=True, policy="float")
    compress_onnx(
        float_file, tmp_path / "ours.onnx", MuLawSpec(4, granularity="group:32"), flat=True, policy="float"
    )
    assert same_weights(result, tmp_path / "ours.onnx")


def test_data_of_olive_is_what_it_is_calibrated_on(float_file: Path, tmp_path: Path) -> None:
    import onnx

    (name,) = (each.name for each in onnx.load(float_file).graph.input)
    script = tmp_path / "samples.py"
    script.write_text(DATA.replace("NAME", repr(name)))
    data = {"name": "samples", "user_script": str(script), "load_dataset_config": {"type": "samples"}}
    result = run(tmp_path, float_file, data_config="samples", data_configs=[data])
    images = [torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(index)) for index in range(16)]
    compress_onnx(float_file, tmp_path / "ours.onnx", calibration=images)
    assert same_weights(result, tmp_path / "ours.onnx")


def test_the_configuration_of_packages_is_olives_own_with_the_pass(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "muquant_integrations.olive"], capture_output=True, text=True, check=True
    )
    passes = json.loads(done.stdout)["passes"]
    assert passes["MuLawCompression"]["module_path"] == "muquant_integrations.olive.MuLawCompression"
    assert "OnnxConversion" in passes
