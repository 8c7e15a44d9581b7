"""Models of timm by name, where that package is installed."""

from typing import Any

import torch

from muquant.base.errors import InputError, first_line
from muquant.models import Normalize
from muquant_cli.sources.names import unknown
from muquant_cli.sources.source import Source

_PREFIX = "timm:"


def is_timm(text: str) -> bool:
    """Whether it has the prefix."""
    return text.startswith(_PREFIX)


def load_timm(text: str, pretrained: bool) -> Source:
    """Return a model of timm, with its pretrained weights or with random ones.

    Raises:
        InputError: timm is not installed, the name is unknown, or there are no weights of it or they cannot
            be fetched.
    """
    import timm  # optional, and it takes seconds

    name = text.removeprefix(_PREFIX)
    if not timm.is_model(name):
        raise unknown("timm model", name, timm.list_models(), "timm.list_models()")
    try:
        module: Any = timm.create_model(name, pretrained=pretrained)
    except Exception as error:  # of the network, of a file system, of a tag that no weights have
        raise InputError(
            f"timm could not make {name}: {first_line(error)}; its weights are downloaded: connect, or add "
            "--state FILE.safetensors, or --state none for random ones"
        ) from error
    config = module.pretrained_cfg
    normalize = Normalize(tuple(config["mean"]), tuple(config["std"]))
    return Source(module, torch.zeros(1, *config["input_size"]), normalize)
