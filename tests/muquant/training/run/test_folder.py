from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from muquant.base.errors import InputError
from muquant.base.tensor_files import read_tensors, write_tensors
from muquant.data import load_dataset
from muquant.models.evaluation import logits
from muquant.training import TrainingConfig, load_run, read_run, train
from muquant.training.run.folder import MODEL_SCHEMA

Tiny = Callable[..., TrainingConfig]


@pytest.fixture
def run(tiny: Tiny, tmp_path: Path) -> Path:
    train(tiny(epochs=1), tmp_path)
    return tmp_path


def rewrite(
    run: Path, tensors: dict[str, Tensor | None] | None = None, manifest: dict[str, Any] | None = None
) -> None:
    """Change tensors (None: drop one) and manifest entries of the finished model."""
    path = run / "model.safetensors"
    file = read_tensors(path, MODEL_SCHEMA)
    data = {**file.tensors, **(tensors or {})}
    kept = {name: tensor.clone() for name, tensor in data.items() if tensor is not None}
    document = {**file.manifest, **(manifest or {})}
    write_tensors(path, document.pop("schema"), kept, document)


def test_a_run_is_loaded_with_its_weights_and_its_record(tiny: Tiny, tmp_path: Path) -> None:
    result = train(tiny(model="wrn-10-1", epochs=1), tmp_path)
    images = load_dataset("tiny", "test")
    for source in (tmp_path, str(tmp_path), tmp_path / "model.safetensors"):
        model = load_run(source)
        assert not model.training
        assert model.architecture == result.model.architecture
        torch.testing.assert_close(logits(model, images), logits(result.model, images), rtol=0, atol=0)
    record = read_run(tmp_path)
    assert record.config == tiny(model="wrn-10-1", epochs=1)
    assert record.classes == ("dark", "grey", "bright")
    assert record.test_accuracy == result.test_accuracy
    assert record.history == result.history


def test_an_unharmed_rewrite_is_accepted(run: Path) -> None:
    rewrite(run)
    load_run(run)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"fc2.bias": None}, r"fc2\.bias: expected torch\.float32 \(3,\), found none"),
        ({"fc3.bias": torch.zeros(3)}, r"fc3\.bias: expected none, found torch\.float32 \(3,\)"),
        (
            {"fc2.bias": torch.zeros(4)},
            r"fc2\.bias: expected torch\.float32 \(3,\), found torch\.float32 \(4,\)",
        ),
        ({"fc2.bias": torch.zeros(3, dtype=torch.float64)}, r"found torch\.float64 \(3,\)"),
    ],
)
def test_tensors_that_do_not_fit_are_named(
    run: Path, tensors: dict[str, Tensor | None], message: str
) -> None:
    rewrite(run, tensors)
    with pytest.raises(InputError, match=message):
        load_run(run)


@pytest.mark.parametrize(
    ("manifest", "message"),
    [
        ({"schema": "muquant.model/99"}, "expected a file of kind muquant.model/1"),
        ({"architecture": None}, "architecture: expected the fields"),
        ({"architecture": {"name": "cnn4"}}, "architecture: expected the fields"),
        ({"config": {}}, "training options: expected the fields"),
        ({"classes": 3}, "manifest is damaged"),
        ({"test_accuracy": "high"}, "manifest is damaged"),
        ({"history": [{"epoch": 1}]}, "manifest is damaged"),
        ({"data": 1}, "manifest is damaged"),
    ],
)
def test_a_damaged_manifest_is_refused(run: Path, manifest: dict[str, Any], message: str) -> None:
    rewrite(run, manifest=manifest)
    with pytest.raises(InputError, match=message) as caught:
        load_run(run)
    assert str(run / "model.safetensors") in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_truncated_file_is_refused_wherever_it_ends(run: Path) -> None:
    path = run / "model.safetensors"
    whole = path.read_bytes()
    for length in (0, 1, 8, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match="is not a whole muquant file"):
            load_run(run)


def test_a_foreign_file_is_refused(run: Path) -> None:
    save_file({"weight": torch.zeros(3)}, run / "model.safetensors")
    with pytest.raises(InputError, match=r"did not write; expected one of kind muquant\.model/1"):
        load_run(run)
    with pytest.raises(
        InputError, match=r"expected a file of kind muquant\.model/1, found 'muquant\.checkpoint/1'"
    ):
        load_run(run / "checkpoint.safetensors")


def test_a_missing_run_is_an_error(run: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="nowhere"):
        load_run(tmp_path / "nowhere")
    (run / "model.safetensors").unlink()
    with pytest.raises(InputError, match="--resume"):
        load_run(run)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(InputError, match="found none"):
        load_run(empty)
