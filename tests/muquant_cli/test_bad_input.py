"""What cannot be used: one line that says what, exit status 2, and nothing half-written."""

import shutil
from pathlib import Path

import pytest
import torch

import muquant
from muquant.base.tensor_files import read_tensors, write_tensors
from muquant.training.run.folder import MODEL_SCHEMA

from .conftest import fails, invoke, invoke_json

pytestmark = pytest.mark.slow


def with_weight(run: Path, to: Path, name: str, value: torch.Tensor) -> Path:
    """Copy a run with one of its tensors replaced."""
    shutil.copytree(run, to)
    file = read_tensors(to / "model.safetensors", MODEL_SCHEMA)
    manifest = dict(file.manifest)
    write_tensors(to / "model.safetensors", manifest.pop("schema"), {**file.tensors, name: value}, manifest)
    return to


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_a_weight_that_is_not_finite_is_named(bad: float, run: Path, tmp_path: Path) -> None:
    weight = read_tensors(run / "model.safetensors", MODEL_SCHEMA).tensors["fc1.weight"].clone()
    weight[3, 5] = bad
    changed = with_weight(run, tmp_path / "run", "fc1.weight", weight)
    message = fails("compress", changed, "-o", tmp_path / "model.mq")
    assert "fc1.weight" in message
    assert "1 value" in message
    assert not (tmp_path / "model.mq").exists()


def test_an_all_zero_channel_decodes_to_exact_zeros(run: Path, tmp_path: Path) -> None:
    weight = read_tensors(run / "model.safetensors", MODEL_SCHEMA).tensors["fc1.weight"].clone()
    weight[3] = 0
    changed = with_weight(run, tmp_path / "run", "fc1.weight", weight)
    invoke_json("compress", changed, "-o", tmp_path / "model.mq")
    decoded = muquant.load(tmp_path / "model.mq").tensors["fc1.weight"].dequantize()
    assert decoded[3].numpy().tobytes() == bytes(4 * decoded.shape[1])
    invoke_json("export", tmp_path / "model.mq", "-o", tmp_path / "model.onnx", "--policy", "int8")
    assert invoke_json("verify", tmp_path / "model.mq", tmp_path / "model.onnx", "--limit", 8)["passed"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--bits", 1), ("bits is 1", "2 to 8")),
        (("--bits", 9), ("bits is 9", "2 to 8")),
        (("--bits", 5, "--grid", "int4"), ('grid is "int4" and bits is 5', "at most 4 bits")),
        (("--mu", -1), ("mu is -1.0", "0 to 65536")),
        (("--mu", "nan"), ("mu is nan", "0 to 65536")),
        (("--mu", "large"), ("--mu is 'large'", "auto")),
        (("--domain", "mapped"), ('mu is "auto"', "mu=255")),
        (("--granularity", "group:0"), ("granularity 'group:0'", "group:64")),
        (("--layers", "conv9"), ("layers 'conv9' matches no layer", "conv1, conv2, fc1, fc2")),
        (("--layers", "last:0"), ("last:0", "last:3")),
        (("--layers", "("), ("not a regular expression",)),
        (("--bits", "three"), ("--bits is 'three'", "3,conv1=8")),
        (("--bits", "conv1=8"), ("--bits is 'conv1=8'", "3,conv1=8")),
        (("--bits", "3,conv1"), ("--bits is '3,conv1'", "REGEX=WIDTH")),
        (("--bits", "3,conv9=8"), ("override 'conv9' matches no layer", "conv1, conv2, fc1, fc2")),
        (("--bits", "3,fc1=9"), ("override 'fc1': bits is 9", "2 to 8")),
    ],
)
def test_a_bad_option_of_compress(
    options: tuple[object, ...], words: tuple[str, ...], run: Path, tmp_path: Path
) -> None:
    message = fails("compress", run, "-o", tmp_path / "model.mq", *options)
    assert all(word in message for word in words), message
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_or_altered_artifact_is_detected(artifact: Path, tmp_path: Path) -> None:
    data, path = artifact.read_bytes(), tmp_path / "model.mq"
    path.write_bytes(data[:-1])
    assert "not a whole muquant file" in fails("inspect", path)
    for place in (len(data) - 5, len(data) // 2):
        changed = bytearray(data)
        changed[place] ^= 1
        path.write_bytes(changed)
        assert "was altered" in fails("inspect", path)
        assert "was altered" in fails("export", path, "-o", tmp_path / "model.onnx")
    assert [each.name for each in tmp_path.iterdir()] == ["model.mq"]


def test_a_file_that_is_not_what_its_name_says(
    run: Path, exported: Path, artifact: Path, tmp_path: Path
) -> None:
    onnx_named_mq, mq_named_onnx = tmp_path / "a.mq", tmp_path / "a.onnx"
    shutil.copy(exported, onnx_named_mq)
    shutil.copy(artifact, mq_named_onnx)
    assert "not a whole muquant file" in fails("inspect", onnx_named_mq)
    assert "not a whole ONNX file" in fails("inspect", mq_named_onnx)
    assert "not a whole ONNX file" in fails("verify", artifact, mq_named_onnx)
    shutil.copy(run / "model.safetensors", tmp_path / "b.mq")
    assert "muquant.compressed/1" in fails("inspect", tmp_path / "b.mq")
    assert "expected a .mq or .onnx file" in fails("inspect", tmp_path / "c.txt")
    assert "--plot draws .mq files" in fails("inspect", exported, "--plot", tmp_path / "w.png")
    assert "--amplification draws .mq files" in fails("inspect", run, "--amplification", tmp_path / "w.png")


def test_missing_files_are_named(artifact: Path, tmp_path: Path) -> None:
    for arguments in (
        ("inspect", tmp_path / "no.mq"),
        ("inspect", tmp_path / "no.onnx"),
        ("compress", tmp_path / "no", "-o", tmp_path / "a.mq"),
        ("export", tmp_path / "no.mq", "-o", tmp_path / "a.onnx"),
        ("verify", artifact, tmp_path / "no.onnx"),
    ):
        assert f"{tmp_path}/no" in fails(*arguments)
    assert list(tmp_path.iterdir()) == []


def test_an_output_that_cannot_be_written(run: Path, artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "a.mq").mkdir()
    assert "it is a folder" in fails("compress", run, "-o", tmp_path / "a.mq")
    assert "name a writable folder" in fails("compress", run, "-o", tmp_path / "no" / "a.mq")
    assert "name a writable folder" in fails("export", artifact, "-o", tmp_path / "no" / "a.onnx")
    assert "ends in .mq or .onnx" in fails("compress", run, "-o", tmp_path / "a.bin")
    (tmp_path / "file").write_text("")
    assert "cannot make the folder" in fails(
        "train", "--data", "digits", "--model", "cnn4-small", "--epochs", 1, "-o", tmp_path / "file" / "run"
    )
    assert sorted(each.name for each in tmp_path.iterdir()) == ["a.mq", "file"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--data", "digits"), ("goes with --run RUN",)),
        (("--amplification", "a.png", "--data", "digits"), ("goes with --run RUN",)),
        (("--run", "RUN", "--amplification", "a.png"), ("and --data DATA",)),
        (("--run", "RUN", "--amplification", "a.txt", "--data", "digits"), ("a.txt", ".png")),
        (("--run", "RUN", "--amplification", "a.png", "--data", "numbers"), ("numbers",)),
        (
            ("--run", "RUN", "--amplification", "a.png", "--data", "digits", "--attack", "ddn"),
            ("attack 'ddn' is unknown", "pgd", "uniform-noise"),
        ),
        (
            ("--run", "RUN", "--amplification", "a.png", "--data", "digits", "--epsilon", "0", "--limit", 4),
            ("fooled the model on none of 4 images", "--epsilon"),
        ),
    ],
)
def test_a_bad_option_of_inspect(
    options: tuple[object, ...],
    words: tuple[str, ...],
    run: Path,
    artifact: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    message = fails("inspect", artifact, *(run if option == "RUN" else option for option in options))
    assert all(word in message for word in words), message
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_that_is_missing(artifact: Path, exported: Path, tmp_path: Path) -> None:
    message = fails("train", "--data", "mnist", "--root", tmp_path, "-o", tmp_path / "run")
    assert "MNIST" in message
    assert "--download" in message
    assert "numbers" in fails("verify", artifact, exported, "--data", "numbers")
    assert list(tmp_path.iterdir()) == []


def test_an_option_that_does_not_exist_is_status_2() -> None:
    assert invoke("compress", "--bit", "3").exit_code == 2
    assert invoke("nothing").exit_code == 2
