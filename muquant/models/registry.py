"""The one table of models, and how one of it is built."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from muquant.base.errors import InputError
from muquant.models.architecture import Architecture, Classifier
from muquant.models.cnn4 import build_cnn4, build_cnn4_small, build_cnn4_strided
from muquant.models.wide_resnet import build_wide_resnet

MAX_PARAMETERS = 1 << 29
"""The most weights a model may have (2 GiB of float32); more is refused before anything is allocated."""


def build_model(
    name: str,
    input_shape: Sequence[int],
    classes: int,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> Classifier:
    """Build a model with fresh random weights, in training mode.

    It takes float32 [N, C, H, W] in [0, 1], normalises it in its first layer and returns logits [N, classes].

    Args:
        name: a name of `MODELS`: "cnn4", "cnn4-small", "cnn4-strided", or "wrn-D-K" with numbers for D and K.
        input_shape: (C, H, W) of one image.
        classes: the number of classes.
        mean: subtracted from every channel; None means 0.
        std: what every channel is divided by after that, above 0; None means 1.

    Raises:
        InputError: an unknown name, a size out of range, or more weights than `MAX_PARAMETERS`.
    """
    channels = input_shape[0] if input_shape else 0
    architecture = Architecture(
        name=name,
        input_shape=tuple(input_shape),  # type: ignore[arg-type]  # Architecture checks the length
        classes=classes,
        mean=(0.0,) * channels if mean is None else tuple(mean),
        std=(1.0,) * channels if std is None else tuple(std),
    )
    return build(architecture)


def build(architecture: Architecture) -> Classifier:
    """Build the model of an architecture with fresh random weights, in training mode.

    Raises:
        InputError: the name is unknown, or the model has more than `MAX_PARAMETERS` weights.
    """
    entry, match = find_model(architecture.name)
    with torch.device("meta"):  # shapes only, nothing is allocated
        count = sum(parameter.numel() for parameter in entry.build(architecture, match).parameters())
    if count > MAX_PARAMETERS:
        raise InputError(
            f"model {architecture.name} for inputs {architecture.input_shape} and {architecture.classes} "
            f"classes: expected at most {MAX_PARAMETERS} weights, found {count}; choose a smaller one"
        )
    return entry.build(architecture, match)


@dataclass(frozen=True)
class ModelEntry:
    """A line of the registry.

    Attributes:
        pattern: a regular expression that the whole name matches.
        build: makes the network of an architecture, given the match of its name.
    """

    pattern: str
    build: Callable[[Architecture, re.Match[str]], Classifier]


MODELS: dict[str, ModelEntry] = {
    "cnn4": ModelEntry("cnn4", build_cnn4),
    "cnn4-small": ModelEntry("cnn4-small", build_cnn4_small),
    "cnn4-strided": ModelEntry("cnn4-strided", build_cnn4_strided),
    "wrn-D-K": ModelEntry(r"wrn-([0-9]{1,6})-([0-9]{1,6})", build_wide_resnet),
}


def model_names() -> tuple[str, ...]:
    """The known names as a user writes them; capital letters stand for numbers."""
    return tuple(MODELS)


def find_model(name: str) -> tuple[ModelEntry, re.Match[str]]:
    """The line of the registry that `name` matches, and the match.

    Raises:
        InputError: there is none.
    """
    for entry in MODELS.values():
        if match := re.fullmatch(entry.pattern, name):
            return entry, match
    raise InputError(
        f"model {name!r} is unknown; expected one of {', '.join(model_names())}, with numbers in place of "
        f"capital letters"
    )
