"""Folders with a config.json: what is saved is loaded, what does not fit refused; optimum opens them."""

import json
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import Tensor, nn

import muquant
from muquant.base.errors import InputError
from muquant_integrations import MuLawModel
from muquant_onnx import compress_onnx, export_onnx, load_session


@pytest.fixture(scope="module")
def compressed_file(float_file: Path) -> Path:
    """The network at 3 bits, as an ONNX file."""
    path = float_file.parent / "small.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", muquant.AnswersWarning)
        compress_onnx(float_file, path)
    return path


def change_config(folder: Path, change: Callable[[Any], None]) -> None:
    document = json.loads((folder / "config.json").read_text())
    change(document["muquant"])
    (folder / "config.json").write_text(json.dumps(document))


def test_an_onnx_file_comes_back_with_its_configuration(
    compressed_file: Path, images: Tensor, tmp_path: Path
) -> None:
    MuLawModel(compressed_file, {"labels": ["a", "b"]}).save_pretrained(tmp_path / "kept")
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {"config.json", "model.onnx"}
    assert (tmp_path / "kept/model.onnx").read_bytes() == compressed_file.read_bytes()
    session = load_session(compressed_file)
    (name,) = (each.name for each in session.get_inputs())
    (wanted,) = session.run(None, {name: images.numpy()})
    for policy in (None, "float"):
        model = MuLawModel.from_pretrained(tmp_path / "kept", policy=policy)
        assert model.config["labels"] == ["a", "b"]
        for outputs in (model(images), model(**{name: images.numpy()})):
            (found,) = outputs.values()
            np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)
    again = MuLawModel.from_pretrained(tmp_path / "kept")
    again.save_pretrained(tmp_path / "copy")
    again.save_pretrained(tmp_path / "kept")  # into itself
    for folder in ("kept", "copy"):
        assert MuLawModel.from_pretrained(tmp_path / folder).config == again.config


def test_a_module_comes_back(network: nn.Module, images: Tensor, tmp_path: Path) -> None:
    compressed = muquant.compress(network, check=False)
    MuLawModel(compressed).save_pretrained(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "model.mq"}
    fresh = nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 4))
    model = MuLawModel.from_pretrained(tmp_path, fresh)
    assert torch.equal(model(images), compressed.module(images))
    with pytest.raises(InputError, match="has no session"):
        _ = model.session
    with pytest.raises(InputError, match="does not fit"):
        MuLawModel.from_pretrained(tmp_path, nn.Linear(3, 3))


def test_external_data_goes_along(compressed_file: Path, images: Tensor, tmp_path: Path) -> None:
    wanted = MuLawModel(compressed_file)(images)
    large = tmp_path / "large"
    large.mkdir()
    onnx.save_model(
        onnx.load(compressed_file), large / "any.onnx", save_as_external_data=True, location="weights.bin",
        size_threshold=256,
    )  # fmt: skip
    MuLawModel(large / "any.onnx").save_pretrained(tmp_path / "kept")
    assert {path.name for path in (tmp_path / "kept").iterdir()} == {
        "config.json",
        "model.onnx",
        "weights.bin",
    }
    found = MuLawModel.from_pretrained(tmp_path / "kept")(images)
    for name, value in wanted.items():
        np.testing.assert_array_equal(found[name], value)
    with (tmp_path / "kept/weights.bin").open("ab") as file:
        file.write(b"more")
    with pytest.raises(InputError, match=r"weights.bin has .* bytes, expected .* whole copy"):
        MuLawModel.from_pretrained(tmp_path / "kept")
    (large / "weights.bin").rename(large / "config.json")
    model = onnx.load(large / "any.onnx", load_external_data=False)
    for tensor in model.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = "config.json"
    onnx.save(model, large / "any.onnx")
    with pytest.raises(InputError, match="expected another name"):
        MuLawModel(large / "any.onnx").save_pretrained(tmp_path / "other")


def test_a_folder_of_a_cache_is_one_of_links(compressed_file: Path, images: Tensor, tmp_path: Path) -> None:
    MuLawModel(compressed_file).save_pretrained(tmp_path / "kept")
    blobs, snapshot = tmp_path / "cache/blobs", tmp_path / "cache/snapshots/one"
    blobs.mkdir(parents=True)
    snapshot.mkdir(parents=True)
    for number, path in enumerate(sorted((tmp_path / "kept").iterdir())):
        path.rename(blobs / str(number))
        (snapshot / path.name).symlink_to(os.path.relpath(blobs / str(number), snapshot))
    assert MuLawModel.from_pretrained(snapshot)(images).keys() == MuLawModel(compressed_file)(images).keys()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda ours: ours["files"].update({"model.onnx": 5}), "model.onnx has .* bytes, expected 5"),
        (lambda ours: ours["files"].update({"model.onnx": True}), "size of model.onnx is True"),
        (lambda ours: ours["files"].update({"model.onnx": -1}), "size of model.onnx is -1"),
        (lambda ours: ours["files"].update({"../secret": 6}), "outside the model's folder"),
        (lambda ours: ours["files"].update({"/etc/hostname": 6}), "outside the model's folder"),
        (lambda ours: ours["files"].update({"link": 6}), "a link out of the model's folder"),
        (lambda ours: ours["files"].update({"absent": 6}), "put the file beside the model"),
        (lambda ours: ours["files"].update({"model.mq": 6}), 'expected an entry "muquant"'),
        (lambda ours: ours["files"].clear(), 'expected an entry "muquant"'),
        (lambda ours: ours.update(files=["model.onnx"]), 'expected an entry "muquant"'),
    ],
)
def test_a_folder_that_does_not_fit_its_configuration_is_refused(
    compressed_file: Path, tmp_path: Path, change: Callable[[Any], None], message: str
) -> None:
    folder = tmp_path / "kept"
    MuLawModel(compressed_file).save_pretrained(folder)
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    change_config(folder, change)
    with pytest.raises(InputError, match=message) as caught:
        MuLawModel.from_pretrained(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[]", "{}", '{"muquant": 3}', "{", '{"muquant": {"files": NaN}}'])
def test_a_configuration_that_is_not_ours_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        MuLawModel.from_pretrained(tmp_path)


def test_what_cannot_be_used_is_one_line(compressed_file: Path, images: Tensor, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="absent"):
        MuLawModel.from_pretrained(tmp_path / "absent")
    with pytest.raises(InputError, match="cannot read"):
        MuLawModel(tmp_path / "absent.onnx")
    with pytest.raises(InputError, match="config: expected JSON values"):
        MuLawModel(compressed_file, {"value": object()})
    with pytest.raises(InputError, match="config: expected JSON values"):
        MuLawModel(compressed_file, {"value": float("nan")})
    model = MuLawModel(compressed_file)
    wrong: list[tuple[list[Tensor], dict[str, Tensor]]] = [
        ([], {}),
        ([images, images], {}),
        ([images], {"other": images}),
    ]
    for inputs, named in wrong:
        with pytest.raises(InputError, match="takes the inputs"):
            model(*inputs, **named)
    with pytest.raises(InputError, match="onnxruntime cannot run"):
        model(images[0])
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot make the folder"):
        model.save_pretrained(tmp_path / "file")


@pytest.mark.slow
def test_optimum_opens_what_was_saved(tmp_path: Path) -> None:
    onnx_models = pytest.importorskip(
        "optimum.onnxruntime", reason="needs optimum-onnx: make test-integrations"
    )
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64
    )
    bert = transformers.BertModel(config, add_pooling_layer=False).eval()
    ids = torch.randint(1, 99, (2, 7))
    example = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    compressed = muquant.compress(bert, example=example, check=False)
    export_onnx(compressed, tmp_path / "small.onnx", example)
    MuLawModel(tmp_path / "small.onnx", config.to_dict()).save_pretrained(tmp_path / "kept")

    opened = onnx_models.ORTModelForFeatureExtraction.from_pretrained(tmp_path / "kept")
    theirs = opened(**example).last_hidden_state
    ours = MuLawModel.from_pretrained(tmp_path / "kept")(**example)["last_hidden_state"]
    np.testing.assert_allclose(theirs.numpy(), ours, rtol=1e-4, atol=1e-4)
    with torch.no_grad():
        wanted = compressed.module(**example).last_hidden_state
    np.testing.assert_allclose(ours, wanted.numpy(), rtol=1e-2, atol=1e-2)
