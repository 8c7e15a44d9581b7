"""Finished attacks in a folder, so that an interrupted benchmark goes on where it stopped."""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from muquant.attacks import AttackResult
from muquant.attacks.result import BY_IMAGE
from muquant.base.errors import InputError
from muquant.base.files import make_folder
from muquant.base.tensor_files import read_tensors, write_tensors

SCHEMA = "muquant.attack/1"


class Store:
    """Results by key: a JSON object of all that decides them.

    A file that is damaged, or was written for another key, counts as none: the attack runs again.

    Args:
        folder: where the files are; None keeps nothing.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder

    def get(self, name: str, key: Mapping[str, Any]) -> AttackResult | None:
        """The result kept for `key`, if there is one; `name` only makes the file's name readable."""
        path = self._path(name, key)
        if path is None or not path.is_file():
            return None
        try:
            file = read_tensors(path, SCHEMA)
            if file.manifest["key"] != json.loads(json.dumps(key)):
                return None
            return AttackResult(
                **{field: file.tensors[field] for field in BY_IMAGE}, seconds=float(file.manifest["seconds"])
            )
        except (InputError, KeyError, TypeError, ValueError):
            return None

    def put(self, name: str, key: Mapping[str, Any], result: AttackResult) -> None:
        """Keep a result, whole or not at all."""
        path = self._path(name, key)
        if path is not None:
            make_folder(path.parent)
            tensors = {field: getattr(result, field) for field in BY_IMAGE}
            write_tensors(path, SCHEMA, tensors, {"key": dict(key), "seconds": result.seconds})

    def _path(self, name: str, key: Mapping[str, Any]) -> Path | None:
        if self.folder is None:
            return None
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
        return self.folder / f"{re.sub(r'[^A-Za-z0-9._-]+', '-', name)[:80]}-{digest[:16]}.safetensors"
