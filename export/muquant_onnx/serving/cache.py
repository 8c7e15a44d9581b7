"""Optimised models that are kept: a file that was opened once opens fast.

An entry of the folder is named after all that its content depends on, and holds the optimised model, its
weights, and a manifest with that name's parts, sizes and check sums. What is stale has another name; what is
not whole, or not what the manifest says, is made again. An optimised model is a model that runs, so the
folder has to be one that nobody else can write to.
"""

import hashlib
import json
import os
import platform
import shutil
import stat
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

import muquant
from muquant.base.errors import InputError
from muquant.base.files import make_folder, scratch_folder, write_json
from muquant.base.processor import processor_lines
from muquant.base.reading import open_file, read_json
from muquant_onnx.files.external import locate, tensors_of
from muquant_onnx.files.parse import parse
from muquant_onnx.files.wire import is_external

FORMAT = 1
_MODEL, _MANIFEST = "model.onnx", "manifest.json"
_CHUNK = 1 << 20
_SYSTEM = 0, 65534
"""The users whose folders one has to live with: root, and nobody, which root is called inside containers."""

Key = dict[str, Any]


def cache_key(path: str | os.PathLike[str], setting: str, policy: str | None) -> Key:
    """All that an optimised model depends on, as JSON values.

    Raises:
        InputError: the file cannot be read.
    """
    return {
        "format": FORMAT,
        "muquant": muquant.__version__,
        "file": _digest(Path(path)),
        "setting": setting,
        "policy": policy,
        "onnxruntime": ort.__version__,
        "processor": _processor(),
    }


def cached_session(
    folder: str | os.PathLike[str],
    key: Key,
    open_new: Callable[[Path], ort.InferenceSession],
    open_optimized: Callable[[Path], ort.InferenceSession],
) -> ort.InferenceSession:
    """Open what `folder` has for `key`, or open it anew and keep it.

    Args:
        folder: made where it is not there.
        key: see `cache_key`.
        open_new: opens a session and writes its optimised model to a path.
        open_optimized: opens an optimised model.

    Raises:
        InputError: others can write to the folder, or it cannot be made.
    """
    root = Path(folder)
    if not root.is_dir():
        make_folder(root).chmod(0o700)
    _check_private(root)
    entry = root / hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
    if _is_whole(entry, key):
        with suppress(InputError):  # what onnxruntime cannot load is made again
            return open_optimized(entry / _MODEL)
    with scratch_folder(root / "entry") as scratch:
        made = scratch / "entry"
        made.mkdir()
        session = open_new(made / _MODEL)
        files = {path.name: _sum(path) for path in sorted(made.iterdir())}
        write_json(made / _MANIFEST, {"key": key, "files": files})
        _put_in_place(made, entry, scratch / "old")
    return session


def _check_private(folder: Path) -> None:
    """Refuse a folder that others can write to, and one whose place others can give to another folder."""
    if os.name != "posix":
        return
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise InputError(
            f"the cache folder {folder} belongs to another user or can be written by others, who could put "
            f"models into it; name one of your own, or: chmod go-w {folder}"
        )
    for above in folder.resolve().parents:
        if _others_rename(above.stat()):
            raise InputError(
                f"the cache folder {folder} lies in {above}, which belongs to another user or can be written "
                f"by others, who could put another folder in its place; name one elsewhere, or: "
                f"chmod go-w {above}"
            )


def _others_rename(found: os.stat_result) -> bool:
    """Whether others than this user and root can rename what lies in a folder that is not theirs."""
    if found.st_uid not in (*_SYSTEM, os.getuid()):
        return True
    writers = stat.S_IWOTH if found.st_gid == _private_group() else stat.S_IWOTH | stat.S_IWGRP
    return bool(found.st_mode & writers) and not found.st_mode & stat.S_ISVTX


def _private_group() -> int | None:
    """The group that has this user's name, of which usually nobody else is; None where there is none."""
    import grp  # only where there are groups
    import pwd

    try:
        return grp.getgrnam(pwd.getpwuid(os.getuid()).pw_name).gr_gid
    except KeyError:
        return None


def _is_whole(entry: Path, key: Key) -> bool:
    """Whether `entry` is there, for `key`, and as it was written."""
    try:
        manifest = read_json(entry / _MANIFEST)
        files = manifest["files"]
        return (
            manifest["key"] == key
            and _MODEL in files
            and all(Path(name).name == name and _sum(entry / name) == files[name] for name in files)
        )
    except (InputError, OSError, LookupError, TypeError):
        return False


def _sum(path: Path) -> dict[str, int]:
    """Size and check sum of a file: against damage, not against an enemy."""
    nbytes = total = 0
    with open_file(path) as file:
        while chunk := file.read(_CHUNK):
            total, nbytes = zlib.crc32(chunk, total), nbytes + len(chunk)
    return {"nbytes": nbytes, "crc32": total}


def _put_in_place(made: Path, entry: Path, old: Path) -> None:
    """Let `made` be `entry`; where another process is faster, its entry stays."""
    with suppress(FileNotFoundError):
        entry.rename(old)
    try:
        made.rename(entry)
    except OSError:  # another process has put its own there
        shutil.rmtree(made)


def _digest(path: Path) -> str:
    """SHA-256 of a model and of the external data that it uses."""
    digest = hashlib.sha256()
    for part in [path, *_external_files(path)]:
        with open_file(part) as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    return digest.hexdigest()


def _external_files(path: Path) -> list[Path]:
    proto: onnx.ModelProto = parse(path)
    locate(proto, path)
    places = {
        item.value
        for tensor in tensors_of(proto)
        if is_external(tensor)
        for item in tensor.external_data
        if item.key == "location"
    }
    return sorted({Path(place) for place in places} - {path.resolve()})


def _processor() -> str:
    """The processor and what it can do: onnxruntime lays out weights for it."""
    lines = processor_lines()
    if not lines:
        return f"{platform.machine()} {platform.processor()}"
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()
