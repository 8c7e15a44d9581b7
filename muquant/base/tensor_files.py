"""Safetensors files with a JSON manifest and a checksum: no pickle, so reading one never runs code."""

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from muquant.base.errors import InputError
from muquant.base.files import write_bytes
from muquant.base.reading import parse_json, read_bytes, require_file

_MANIFEST, _CHECKSUM = "muquant", "sha256"
_BLANK = "0" * 64
_MAX_HEADER = 100_000_000  # what safetensors itself accepts


def write_tensors(
    path: str | os.PathLike[str], schema: str, tensors: Mapping[str, Tensor], manifest: Mapping[str, Any]
) -> None:
    """Write tensors and manifest to `path`, whole or not at all.

    The metadata holds the SHA-256 of the file itself, taken with that field blank (64 zeros), so that any
    changed byte is found when the file is read.

    Args:
        path: of the file.
        schema: what kind of file it is, with a version, such as "muquant.model/1".
        tensors: by name, on any device; no two may share memory.
        manifest: JSON values; floats come back bit for bit.
    """
    document = json.dumps({"schema": schema, **manifest}, allow_nan=False)
    data = save(
        {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
        metadata={_MANIFEST: document, _CHECKSUM: _BLANK},
    )
    write_bytes(path, _with_checksum(data, _BLANK, hashlib.sha256(data).hexdigest()))


@dataclass(frozen=True)
class TensorFile:
    """A file whose checksum held.

    Attributes:
        path: where it was read from.
        manifest: the JSON values that were written.
        tensors: by name, on the CPU.
    """

    path: Path
    manifest: Mapping[str, Any]
    tensors: Mapping[str, Tensor]

    def copy_into(self, targets: Mapping[str, Tensor]) -> None:
        """Copy the file's tensors over `targets`, once all names, shapes and types have been found equal.

        Raises:
            InputError: the file and `targets` differ; nothing has been copied then.
        """
        found, expected = _kinds(self.tensors), _kinds(targets)
        if found != expected:
            differing = sorted({name for name, _ in set(found.items()) ^ set(expected.items())})
            name = differing[0]
            raise InputError(
                f"{self.path}: {len(differing)} tensors differ from the model's, first {name}: "
                f"expected {expected.get(name, 'none')}, found {found.get(name, 'none')}; take its own file"
            )
        with torch.no_grad():
            for name, target in targets.items():
                target.copy_(self.tensors[name])


def read_tensors(path: str | os.PathLike[str], schema: str) -> TensorFile:
    """Read a file that `write_tensors` wrote.

    Raises:
        InputError: the file is missing, truncated, altered, or of another kind.
    """
    path = require_file(path)
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
        data = read_bytes(path)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or 'no such file'}; name another") from error
    except SafetensorError as error:
        raise InputError(
            f"{path} is not a whole muquant file ({error}); it is damaged, or something else wrote it"
        ) from error
    if _MANIFEST not in metadata or _CHECKSUM not in metadata:
        raise InputError(
            f"{path} is a safetensors file that muquant did not write; expected one of kind {schema}"
        )
    checksum = metadata[_CHECKSUM]
    blank = _with_checksum(data, checksum, _BLANK)
    if len(checksum) != len(_BLANK) or hashlib.sha256(blank).hexdigest() != checksum:
        raise InputError(f"{path} was altered: its SHA-256 does not match; take an unchanged copy")
    try:  # the checksum holds, but anyone can compute one
        manifest = parse_json(metadata[_MANIFEST], "its manifest")
        found = manifest.get("schema")
        tensors = load(data)
    except (ValueError, AttributeError, KeyError, RuntimeError, OverflowError, SafetensorError) as error:
        raise InputError(f"{path} is malformed ({error!s:.200}); write it with muquant") from error
    if found != schema:
        raise InputError(f"{path}: expected a file of kind {schema}, found {found!r:.60}; name another")
    return TensorFile(path, manifest, tensors)


def _with_checksum(data: bytes, old: str, new: str) -> bytes:
    """Replace the checksum in the header of a safetensors file (8 bytes of length, then JSON)."""
    end = 8 + min(int.from_bytes(data[:8], "little"), _MAX_HEADER)
    before, after = f'"{_CHECKSUM}":"{old}"'.encode(), f'"{_CHECKSUM}":"{new}"'.encode()
    return data[:end].replace(before, after, 1) + data[end:]


def _kinds(tensors: Mapping[str, Tensor]) -> dict[str, str]:
    return {name: f"{tensor.dtype} {tuple(tensor.shape)}" for name, tensor in tensors.items()}
