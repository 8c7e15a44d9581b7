"""`read_source` and the one table of source kinds."""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from muquant.base.errors import InputError, naming
from muquant.models.wrappers import unwrapped
from muquant_cli.sources.factory import is_factory, load_factory
from muquant_cli.sources.robustbench_model import is_robustbench, load_robustbench
from muquant_cli.sources.run_folder import is_run, load_run_folder
from muquant_cli.sources.source import Source
from muquant_cli.sources.state import NO_STATE, load_state
from muquant_cli.sources.timm_model import is_timm, load_timm
from muquant_cli.sources.torchvision_model import is_torchvision, load_torchvision

_SEED = 0
_WEIGHTS = {".bin", ".ckpt", ".pt", ".pth", ".safetensors"}
"""Endings of files that mostly hold weights without the model."""


@dataclass(frozen=True)
class SourceKind:
    """A line of the registry.

    Attributes:
        form: what a user writes.
        claims: whether a text is of this kind.
        load: makes the model that a text names, with its pretrained weights or with those that it is built
            with, or raises `InputError`.
    """

    form: str
    claims: Callable[[str], bool]
    load: Callable[[str, bool], Source]


SOURCES: dict[str, SourceKind] = {
    "run": SourceKind("a run folder", is_run, load_run_folder),
    "torchvision": SourceKind("torchvision:NAME", is_torchvision, load_torchvision),
    "timm": SourceKind("timm:NAME", is_timm, load_timm),
    "robustbench": SourceKind("robustbench:NAME", is_robustbench, load_robustbench),
    "factory": SourceKind("pkg.module:factory", is_factory, load_factory),
}
"""Kind -> how it is read. The first that claims a text gets it."""


def source_forms(others: Sequence[str] = ()) -> str:
    """Return the forms of a source as a user writes them, with `others` that a caller takes besides."""
    forms = [*(kind.form for kind in SOURCES.values()), *others]
    return f"{', '.join(forms[:-1])} or {forms[-1]}"


def read_source(
    text: str, *, state: str | os.PathLike[str] | None = None, others: Sequence[str] = ()
) -> Source:
    """Build the model that `text` names. A factory is code, and is run: trust what you name.

    Args:
        text: in one of the forms of `SOURCES`.
        state: None for the weights that belong to the name, which may be downloaded; "none" for those that
            the model is built with, the same each time; or a safetensors file of its state.
        others: what the caller takes besides, for the message.

    Raises:
        InputError: no kind claims the text, or the model or its state cannot be had.
    """
    for name, kind in SOURCES.items():
        if kind.claims(text):
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(_SEED)
                source = kind.load(text, state is None)
            with naming(text):
                source = replace(source, module=unwrapped(source.module))
            if state is not None and state != NO_STATE:
                load_state(source.module, state)
            source.module.eval()
            return replace(source, kind=name, text=text)
    weights = "" if Path(text).suffix not in _WEIGHTS else "; weights alone go by --state, with their model"
    raise InputError(f"cannot tell what {text} is; expected {source_forms(others)}{weights}")
