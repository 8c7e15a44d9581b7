"""Models of torchvision by name."""

import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from muquant.base.errors import InputError, first_line
from muquant.models import Normalize
from muquant_cli.sources.names import unknown
from muquant_cli.sources.source import Source

_PREFIX = "torchvision:"
_DEFAULT_SIDE = 224
_SIDES = {"ImageClassification": "crop_size", "SemanticSegmentation": "resize_size"}
"""Kind of transforms -> which of its attributes is the side of an image. Others take no single image."""


def is_torchvision(text: str) -> bool:
    """Whether it has the prefix."""
    return text.startswith(_PREFIX)


def load_torchvision(text: str, pretrained: bool) -> Source:
    """Return a model of torchvision as its default weights want it; with those, or with random ones.

    Raises:
        InputError: the name is unknown, or there are no weights of it or they cannot be fetched.
    """
    from torchvision import models  # takes a second or two

    name = text.removeprefix(_PREFIX)
    known = models.list_models()
    if name not in known:
        raise unknown("torchvision model", name, known, "torchvision.models.list_models()")
    weights = getattr(models.get_model_weights(name), "DEFAULT", None)
    if pretrained and weights is None:
        raise InputError(
            f"torchvision has no pretrained weights of {name}; add --state FILE.safetensors, or none"
        )
    options: dict[str, Any] = {}
    if "weights_backbone" in inspect.signature(models.get_model_builder(name)).parameters:
        options["weights_backbone"] = None  # else these are fetched, whatever `weights` is
    try:
        with nullcontext() if pretrained or weights is None else _not_loaded(type(weights)):
            module = models.get_model(name, weights=weights, **options)
    except Exception as error:  # of the network, of a file system, of a package that a model needs
        raise InputError(
            f"torchvision could not make {name}: {first_line(error)}; its weights are downloaded: connect, "
            "or add --state FILE.safetensors, or --state none for random ones"
        ) from error
    transforms = None if weights is None else weights.transforms()
    return Source(module, _example(transforms), _preprocess(transforms))


@contextmanager
def _not_loaded(enum: Any) -> Iterator[None]:
    """Let torchvision build a model for its pretrained weights, of the class `enum`, without loading them.

    Built without weights, some models are others: GoogLeNet would normalise its input differently, a
    segmentation network lack its second head, a ViT take smaller images. Torchvision has no option for it.
    """
    load: Any = nn.Module.load_state_dict
    enum.get_state_dict = lambda *_, **__: {}
    nn.Module.load_state_dict = lambda *_, **__: None  # type: ignore[method-assign]
    try:
        yield
    finally:
        nn.Module.load_state_dict = load  # type: ignore[method-assign]
        del enum.get_state_dict  # the base class has it


def _example(transforms: Any) -> Tensor | None:
    if transforms is None:
        return torch.zeros(1, 3, _DEFAULT_SIDE, _DEFAULT_SIDE)
    attribute = _SIDES.get(type(transforms).__name__)
    if attribute is None:
        return None
    (side,) = getattr(transforms, attribute)
    return torch.zeros(1, 3, side, side)


def _preprocess(transforms: Any) -> nn.Module | None:
    if type(transforms).__name__ not in _SIDES:
        return None
    return Normalize(tuple(transforms.mean), tuple(transforms.std))
