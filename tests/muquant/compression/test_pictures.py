from pathlib import Path

import pytest
import torch
from torch import nn

import muquant
from muquant.compression import pictures
from muquant.compression.amplification import Amplification, LayerError, LossSplit
from muquant.compression.pictures import plot_amplification, plot_weights

pytestmark = pytest.mark.slow
MAGIC = {".png": b"\x89PNG", ".pdf": b"%PDF", ".svg": b"<?xml"}


@pytest.mark.parametrize("suffix", MAGIC)
def test_a_picture_is_written_in_the_format_of_its_name(suffix: str, tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3), nn.Embedding(5, 2))
    path = tmp_path / f"weights{suffix}"
    plot_weights(muquant.compress(model).tensors, path, dict(model.named_parameters()))
    assert path.read_bytes().startswith(MAGIC[suffix])
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_a_picture_names_every_weight_and_what_was_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictures, "MAX_PANELS", 4)
    model = nn.Sequential(*(nn.Linear(2, 2, bias=False) for _ in range(5)))
    plot_weights(muquant.compress(model).tensors, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert all(f"<!-- {i}.weight " in text for i in range(4))
    assert "<!-- 4.weight " not in text
    assert "the first 4 of 5 weights" in text


def test_zero_and_empty_weights_are_drawn(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    nn.init.zeros_(model[0].weight)  # type: ignore[arg-type]
    plot_weights(muquant.compress(model).tensors, tmp_path / "a.png", dict(model.named_parameters()))


def test_weights_of_every_width_are_drawn(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.Linear(4, 3))
    plot_weights(muquant.compress(model, overrides={"1": 8}).tensors, tmp_path / "a.svg")
    text = (tmp_path / "a.svg").read_text()
    assert "<!-- 0.weight   3 bits" in text
    assert "<!-- 1.weight   8 bits" in text


def amplification(layers: int) -> Amplification:
    split = LossSplit(0.5, 0.4, 0.2, 0.1)
    errors = (
        LayerError(f"layer{number}", None if number == 1 else 3, 0.3, split, split, 0.7)
        for number in range(layers)
    )
    return Amplification(9, tuple(errors), ())


@pytest.mark.parametrize("layers", [1, 4, 40])
def test_the_errors_of_every_layer_are_drawn(layers: int, tmp_path: Path) -> None:
    path = tmp_path / "a.svg"
    plot_amplification(amplification(layers), path, "pgd 0.3")
    text = path.read_text()
    assert all(f"<!-- layer{number}" in text for number in range(layers))
    assert ("float -->" in text) == (layers > 1)
    for words in ("pgd 0.3, compressed weights", "pgd 0.3, float weights", "9 clean inputs", "W dx"):
        assert words in text
    with pytest.raises(muquant.InputError, match=r"a\.txt: expected a name that ends in"):
        plot_amplification(amplification(1), tmp_path / "a.txt")
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_what_cannot_be_drawn_is_named(tmp_path: Path) -> None:
    tensors = muquant.compress(nn.Sequential(nn.Linear(3, 2))).tensors
    with pytest.raises(
        muquant.InputError, match=r"a\.jpeg: expected a name that ends in \.pdf, \.png, \.svg"
    ):
        plot_weights(tensors, tmp_path / "a.jpeg")
    with pytest.raises(muquant.InputError, match=r"0\.weight has shape \(3, 3\) in the float model"):
        plot_weights(tensors, tmp_path / "a.png", {"0.weight": torch.zeros(3, 3)})
    assert list(tmp_path.iterdir()) == []
