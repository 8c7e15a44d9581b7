"""Weights from a file instead of those that belong to a name."""

import os

from safetensors import SafetensorError
from safetensors.torch import load_model
from torch import nn

from muquant.base.errors import InputError, first_line

NO_STATE = "none"
"""The weights that a model is built with."""


def load_state(module: nn.Module, path: str | os.PathLike[str]) -> None:
    """Fill `module` with the state dict in a safetensors file; nothing is unpickled.

    Raises:
        InputError: the file is missing or no safetensors file, or its names or shapes are not those of
            `module`, which may be half-filled then.
    """
    try:
        missing, unexpected = load_model(module, path, strict=False)
    except OSError as error:
        raise InputError(
            f"--state: cannot read {path}: {error.strerror or 'no such file'}; "
            "name a safetensors file, or none"
        ) from error
    except SafetensorError as error:
        raise InputError(
            f"--state: expected a whole safetensors file, found {path} ({first_line(error)}); convert it by "
            "safetensors.torch.save_model"
        ) from error
    except RuntimeError as error:  # torch lists all shapes that differ behind a headline
        reason = str(error).strip().splitlines()[-1].strip()
        raise InputError(f"--state: {path} does not fit {type(module).__name__}: {reason}") from error
    if missing or unexpected:
        first = f"{min(missing)} is missing" if missing else f"{min(unexpected)} is unexpected"
        raise InputError(
            f"--state: {path} does not fit {type(module).__name__}: {len(missing)} tensors are missing and "
            f"{len(unexpected)} unexpected, first {first}; name the state of this model"
        )
