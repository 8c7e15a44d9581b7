"""`timm:NAME`, where timm is installed, and what is said where it is not."""

import sys
from importlib.machinery import PathFinder
from typing import Any

import pytest
import torch

from muquant import InputError
from muquant_cli.sources import read_source

pytestmark = pytest.mark.slow


def test_without_timm_the_line_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.setattr(sys, "meta_path", [each for each in sys.meta_path if each is not PathFinder])
    with pytest.raises(InputError, match=r"timm, which is not installed; run: pip install 'muquant\[timm\]'"):
        read_source("timm:resnet10t")


def test_a_model_with_the_input_that_its_configuration_wants() -> None:
    timm = pytest.importorskip("timm", reason="timm is optional")
    source = read_source("timm:resnet10t", state="none")
    example: Any = source.require_example()
    assert (source.kind, tuple(example.shape)) == ("timm", (1, 3, 176, 176))
    config = timm.data.resolve_model_data_config(source.module)
    assert tuple(example.shape[1:]) == config["input_size"]
    assert source.preprocess is not None
    (pixel,) = source.preprocess(torch.full((1, 3, 1, 1), 0.5)).reshape(1, 3).tolist()
    expected = [(0.5 - mean) / std for mean, std in zip(config["mean"], config["std"], strict=True)]
    assert pixel == pytest.approx(expected)


def test_a_name_or_tag_that_is_unknown() -> None:
    pytest.importorskip("timm", reason="timm is optional")
    with pytest.raises(InputError, match=r"timm model 'resnet10' is unknown; did you mean resnet10t"):
        read_source("timm:resnet10")
    with pytest.raises(InputError, match=r"could not make resnet10t.zz: Invalid pretrained tag"):
        read_source("timm:resnet10t.zz", state="none")
