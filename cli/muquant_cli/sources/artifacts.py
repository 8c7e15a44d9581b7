"""A .mq file with the module that its weights belong to."""

import shlex
from pathlib import Path

import torch

import muquant
from muquant.base.errors import InputError
from muquant.compression.artifact import read_artifact
from muquant_cli.sources import Source, read_source, source_forms
from muquant_cli.sources.state import NO_STATE


def open_artifact(path: Path, module: str | None) -> tuple[muquant.CompressedModel, Source]:
    """Read a .mq file, and what is known of its model.

    Args:
        path: of the file.
        module: the source of the model where muquant does not build it itself; else not looked at. What the
            file tells about its source is never run.

    Raises:
        InputError: the file cannot be used, or the module is needed, cannot be had or does not fit.
    """
    artifact = read_artifact(path)
    if artifact.architecture is not None:
        compressed = muquant.load(path)
        example = torch.zeros(1, *artifact.architecture.input_shape)
        return compressed, Source(compressed.module, example, text=str(path))
    if module is None:
        known = artifact.source is not None
        what = shlex.quote(artifact.source) if artifact.source is not None else "SOURCE"
        forms = "" if known else f", which is {source_forms()}"
        raise InputError(
            f"{path} holds the weights of a model, but not its code; add --module {what}{forms}, "
            "if you trust that code to be run"
        )
    source = read_source(module, state=NO_STATE)
    return muquant.load(path, source.module), source
