"""Weights from a file instead of those that belong to a name."""

import os
from collections import defaultdict
from collections.abc import Collection, Mapping

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from muquant.base.errors import InputError, first_line, naming
from muquant.base.reading import open_file, require_file
from muquant.models.wrappers import fit_names, misfit

NO_STATE = "none"
"""The weights that a model is built with."""

_PICKLES = (b"PK\x03\x04", b"\x80\x02")
"""How files of torch.save begin, now and of old."""


def load_state(module: nn.Module, path: str | os.PathLike[str]) -> None:
    """Fill `module` with the state dict in a safetensors file; nothing is unpickled.

    Names may differ by what wrappers put into them, or by a prefix, see `fit_names`. Of a tensor that has
    several names in the module the file needs one.

    Raises:
        InputError: the file is missing or no safetensors file, or its names or shapes are not those of
            `module`, which may be half-filled then.
    """
    fill(module, _read(path), f"--state: {path}")


def fill(
    module: nn.Module, state: Mapping[str, Tensor], culprit: str, own: Collection[str] = frozenset()
) -> None:
    """Fill `module` with a state dict, as for `load_state`.

    Args:
        module: may be half-filled where the state does not fit.
        state: names -> tensors.
        culprit: the state's name in messages.
        own: names of the module that it keeps its own tensors of where the state has none.

    Raises:
        InputError: the names or shapes are not those of `module`.
    """
    wanted = module.state_dict(keep_vars=True)
    called = fit_names(state, wanted.keys())
    fitted = {called[name]: value for name, value in state.items()}
    fitted = {**{name: wanted[name] for name in own}, **fitted}
    unfit = f"{culprit} does not fit {type(module).__name__}"
    for names in _shared(wanted):
        values = [fitted[name] for name in names if name in fitted]
        if any(not torch.equal(value, values[0]) for value in values[1:]):
            raise InputError(
                f"{unfit}: {' and '.join(names)} are one tensor in the model and differ in the file"
            )
        fitted.update(dict.fromkeys(names, values[0]) if values else {})
    if words := misfit(fitted.keys(), wanted.keys()):
        raise InputError(f"{unfit}: {words}; name the state of this model, no more and no less")
    try:
        module.load_state_dict(fitted)
    except RuntimeError as error:  # torch lists all shapes that differ behind a headline
        raise InputError(f"{unfit}: {str(error).strip().splitlines()[-1].strip()}") from error


def _read(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    with naming("--state"):
        require_file(path, "name a safetensors file, or none")
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        with open_file(path) as file:
            pickled = file.read(4).startswith(_PICKLES)
        if pickled:
            raise InputError(
                f"--state: expected a safetensors file, found {path}, a pickle, which is never opened here; "
                f'convert it once: s = torch.load("{path}", weights_only=True); safetensors.torch.save_file('
                '{k: v.contiguous().clone() for k, v in s.get("state_dict", s).items()}, "state.safetensors")'
            ) from error
        raise InputError(
            f"--state: expected a whole safetensors file, found {path} ({first_line(error)}); convert it by "
            "safetensors.torch.save_model"
        ) from error


def _shared(state: dict[str, Tensor]) -> list[list[str]]:
    """Return the names of the tensors that have several."""
    names = defaultdict(list)
    for name, value in state.items():
        if isinstance(value, Tensor) and value.numel():
            names[value.data_ptr(), value.shape, value.stride()].append(name)
    return [each for each in names.values() if len(each) > 1]
