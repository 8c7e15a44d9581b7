"""Models of RobustBench's list, with weights that the user has; their architectures are that package's."""

import importlib
import importlib.util
import sys
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from muquant.base.errors import InputError, first_line
from muquant.base.reading import open_file
from muquant_cli.sources.names import unknown
from muquant_cli.sources.source import Source
from muquant_cli.sources.state import fill

_PREFIX = "robustbench:"
_FOLDER = Path("models")
"""Where RobustBench itself keeps checkpoints: models/cifar10/Linf/NAME.pt."""

_SIDES = {"imagenet": 224}
_SIDE = 32
_INSIDE = ("last", "state_dict")
"""Where in a checkpoint the state may be; RobustBench takes the last epoch where the best is there, too."""

_CONSTANTS = {"mu", "sigma", "mean", "std"}
"""Buffers of normalisation, which not all checkpoints hold."""


def is_robustbench(text: str) -> bool:
    """Whether it has the prefix."""
    return text.startswith(_PREFIX)


def load_robustbench(text: str, pretrained: bool) -> Source:
    """Return a model of RobustBench's list with the weights of its checkpoint, or as it is built.

    It is named by NAME, DATASET/THREAT/NAME, or the path of its checkpoint, PATH/DATASET/THREAT/NAME.pt, as
    RobustBench keeps it; without a path it is looked for in the folder `models`. Nothing is downloaded, and
    of a checkpoint nothing but weights is opened.

    Raises:
        InputError: robustbench is not installed, the name is unknown or that of several, the model is made of
            several files, or the checkpoint is missing, holds other things than weights, or does not fit.
    """
    named = text.removeprefix(_PREFIX)
    zoo = _zoo(text)
    dataset, threat, name = _find(named, zoo)
    entry, label = zoo[dataset][threat][name], f"{dataset}/{threat}/{name}"
    single = isinstance(entry.get("gdrive_id"), str) and not (
        dataset == "imagenet" and name.startswith("Standard")
    )
    if not single:
        raise InputError(
            f"{text}: RobustBench makes {label} of several files, or of weights of timm or torchvision; "
            "expected a model of one checkpoint; name it by timm:NAME or torchvision:NAME, or write a factory"
        )
    try:
        with _quiet():
            module: nn.Module = entry["model"]()
    except Exception as error:  # of the network, of a package that a model needs
        raise InputError(f"robustbench could not make {label}: {first_line(error)}") from error
    if pretrained:
        path = Path(named) if named.endswith(".pt") else _FOLDER / f"{label}.pt"
        buffers = {name for name, _ in module.named_buffers()}
        own = {each for each in buffers & set(module.state_dict()) if each.rpartition(".")[2] in _CONSTANTS}
        fill(module, _state(path), str(path), own)
    side = _SIDES.get(dataset, _SIDE)
    return Source(module, torch.zeros(1, 3, side, side), nn.Identity())  # it normalises images itself


def _zoo(text: str) -> Mapping[str, Mapping[str, Mapping[str, Any]]]:
    """Return RobustBench's list: data set -> threat -> name -> what is known of the model."""
    try:
        with _quiet(), _bare("robustbench"):
            models = importlib.import_module("robustbench.model_zoo.models")
    except ImportError as error:
        raise InputError(
            f"{text} needs the package robustbench ({first_line(error)}); install it: pip install "
            "'muquant[robustbench]'"
        ) from error
    return {
        dataset.value: {threat.value: entries for threat, entries in threats.items()}
        for dataset, threats in models.model_dicts.items()
    }


@contextmanager
def _bare(package: str) -> Iterator[None]:
    """Let modules of a package be imported without its `__init__`, which here wants what pip does not install
    with it: the original AutoAttack, pkg_resources.
    """
    spec = None if package in sys.modules else importlib.util.find_spec(package)
    if spec is None:
        yield
        return
    sys.modules[package] = importlib.util.module_from_spec(spec)
    try:
        yield
    finally:
        del sys.modules[package]  # whoever imports it next gets all of it


@contextmanager
def _quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of other packages' own code
        yield


def _find(named: str, zoo: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> tuple[str, str, str]:
    """Return data set, threat and name of what is named."""
    known = {
        (dataset, threat, name): f"{dataset}/{threat}/{name}"
        for dataset, threats in zoo.items()
        for threat, entries in threats.items()
        for name in entries
    }
    path = Path(named)
    wanted = (*path.parts[:-1], path.stem if path.suffix == ".pt" else path.name)[-3:]
    found = [each for each in known if each[-len(wanted) :] == wanted]
    if not found and path.suffix == ".pt":  # in a folder of another name
        found = [each for each in known if each[-1] == wanted[-1]]
    present = [each for each in found if (_FOLDER / f"{known[each]}.pt").is_file()]
    if not found:
        raise unknown(
            "robustbench model",
            "/".join(wanted),
            [*known.values(), *(each[-1] for each in known)],
            "robustbench's model_zoo",
        )
    if len(found) > 1 and len(present) != 1:
        raise InputError(
            f"robustbench model {named!r} is {', '.join(known[each] for each in found)}; name one of these"
        )
    return found[0] if len(found) == 1 else present[0]


def _state(path: Path) -> Mapping[str, Tensor]:
    """Return the state dict in a checkpoint."""
    with open_file(
        path, "name the checkpoint, as robustbench:PATH/DATASET/THREAT/NAME.pt; nothing is downloaded"
    ) as file:
        try:
            found = torch.load(file, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a file of another kind, or a pickle of other things, leads to
            raise InputError(
                f"{path}: expected weights alone, as torch.save writes a state dict, found what torch.load("
                f"weights_only=True) refuses ({type(error).__name__}); save its state dict again"
            ) from error
    while isinstance(found, Mapping) and (key := next((each for each in _INSIDE if each in found), None)):
        found = found[key]
    if (
        not isinstance(found, Mapping)
        or not found
        or not all(isinstance(each, Tensor) for each in found.values())
    ):
        names = ", ".join(map(str, list(found)[:4])) if isinstance(found, Mapping) else "no names"
        raise InputError(
            f"{path}: expected a state dict, names with tensors, found {type(found).__name__} with {names}; "
            "save its state dict alone"
        )
    return found
