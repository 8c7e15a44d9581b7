"""Safetensors files with a JSON manifest: what a run keeps. No pickle, so reading one never runs code."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from muquant.errors import InputError
from muquant.files import write_bytes

_MANIFEST = "muquant"
_DTYPES = {torch.float32: "F32", torch.float64: "F64", torch.int64: "I64"}


def write_tensors(
    path: Path, schema: str, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any]
) -> None:
    """Write tensors and manifest to `path`, whole or not at all.

    Args:
        path: of the file.
        schema: what kind of file it is, with a version.
        tensors: by name, on any device.
        manifest: JSON values; floats come back bit for bit.
    """
    document = json.dumps({"schema": schema, **manifest}, allow_nan=False)
    data = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(data, metadata={_MANIFEST: document}))


@dataclass(frozen=True)
class TensorFile:
    """A file whose manifest has been read and whose tensors have not."""

    path: Path
    manifest: Mapping[str, Any]

    def copy_into(self, targets: Mapping[str, Tensor]) -> None:
        """Copy the file's tensors over `targets`, once all names, shapes and types have been found equal.

        Raises:
            InputError: the file and `targets` differ; nothing has been copied then.
        """
        with safe_open(self.path, framework="pt") as file:
            names = set(file.keys())
            if names != set(targets):
                raise InputError(
                    f"{self.path}: expected the tensors of its architecture, found "
                    f"{sorted(names - set(targets))[:3]} too many and {sorted(set(targets) - names)[:3]} "
                    f"missing; take an unchanged file"
                )
            for name, target in targets.items():
                entry = file.get_slice(name)
                found = entry.get_dtype(), list(entry.get_shape())
                if found != (_DTYPES[target.dtype], list(target.shape)):
                    raise InputError(
                        f"{self.path}: expected {name} as {_DTYPES[target.dtype]} {list(target.shape)}, "
                        f"found {found[0]} {found[1]}; take an unchanged file"
                    )
            with torch.no_grad():
                for name, target in targets.items():
                    target.copy_(file.get_tensor(name))


def open_tensors(path: Path, schema: str) -> TensorFile:
    """Read the manifest of a file that `write_tensors` wrote.

    Raises:
        InputError: the file is missing, damaged, or of another kind.
    """
    try:
        with safe_open(path, framework="pt") as file:
            document = (file.metadata() or {}).get(_MANIFEST)
    except OSError as error:
        raise InputError(
            f"cannot read {path}: {error.strerror or 'no such file'}; name a run folder"
        ) from error
    except SafetensorError as error:
        raise InputError(
            f"{path} is not a whole safetensors file ({error}); it is damaged or something else wrote it"
        ) from error
    try:
        manifest = json.loads(document or "null")
    except ValueError:
        manifest = None
    found = manifest.get("schema") if isinstance(manifest, dict) else None
    if found != schema:
        raise InputError(
            f"{path}: expected a file of kind {schema}, found {found!r:.60}; take one written here"
        )
    return TensorFile(path, manifest)
