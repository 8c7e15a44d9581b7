"""`torchvision:NAME`: the model that its pretrained weights fit, whether they are loaded or not."""

from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import torch
from torch import nn
from torchvision import models
from torchvision.transforms import functional

from muquant import InputError
from muquant_cli.sources import read_source
from muquant_cli.sources.torchvision_model import _not_loaded

pytestmark = pytest.mark.slow


def test_a_classifier_with_the_example_and_normalisation_of_its_weights() -> None:
    source = read_source("torchvision:squeezenet1_1", state="none")
    assert source.kind == "torchvision"
    assert isinstance(source.module, models.SqueezeNet)
    example: Any = source.require_example()
    assert example.shape == (1, 3, 224, 224)
    images = torch.rand(2, 3, 8, 8)
    assert source.preprocess is not None
    expected = functional.normalize(images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(source.preprocess(images), expected)


def test_without_weights_it_is_the_same_each_time_and_leaves_chance_alone() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    states = [read_source("torchvision:squeezenet1_1", state="none").module.state_dict() for _ in range(2)]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    assert torch.equal(torch.rand(3), expected)


def test_without_weights_it_has_the_structure_that_they_want() -> None:
    """GoogLeNet's pretrained form transforms its input and has no auxiliary heads; plain, the reverse."""
    plain: Any = models.googlenet(weights=None, init_weights=False)
    assert (plain.transform_input, plain.aux_logits) == (False, True)
    google: Any = read_source("torchvision:googlenet", state="none").module
    assert (google.transform_input, google.aux_logits, google.aux1) == (True, False, None)
    two_heads: Any = read_source("torchvision:deeplabv3_mobilenet_v3_large", state="none").module
    assert two_heads.aux_classifier is not None


def test_torchvision_is_left_as_it_was() -> None:
    enum = models.SqueezeNet1_1_Weights
    before = nn.Module.load_state_dict, enum.get_state_dict
    with _not_loaded(enum):
        assert nn.Module.load_state_dict is not before[0]
    with pytest.raises(ZeroDivisionError), _not_loaded(enum):
        _ = 1 / 0
    assert (nn.Module.load_state_dict, enum.get_state_dict) == before


def test_a_model_that_takes_no_single_image_has_no_example() -> None:
    source = read_source("torchvision:ssdlite320_mobilenet_v3_large", state="none")
    assert (source.example, source.preprocess) == (None, None)


def test_an_unknown_name_is_told_its_likes() -> None:
    with pytest.raises(InputError, match=r"'squeezenet11' is unknown; did you mean squeezenet1_1"):
        read_source("torchvision:squeezenet11")
    with pytest.raises(InputError, match=r"'' is unknown; torchvision.models.list_models\(\) lists"):
        read_source("torchvision:")


def test_weights_that_cannot_be_fetched_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise URLError("no network")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.urlopen", offline)
    with pytest.raises(
        InputError, match=r"squeezenet1_1: <urlopen error no network>.*--state FILE"
    ) as caught:
        read_source("torchvision:squeezenet1_1")
    assert "\n" not in str(caught.value)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []
