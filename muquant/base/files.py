"""Files that are written whole or not at all, and files that others refer to."""

import json
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from muquant.base.errors import InputError


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed over `path`.

    Whatever fails inside the block leaves `path` as it was and removes the temporary file.

    Raises:
        InputError: the folder does not exist or cannot be written, or `path` is a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(f"cannot write {target}: it is a folder; name a file in it")
    try:
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.", suffix=target.suffix)
    except OSError as error:
        raise InputError(
            f"cannot write {target}: {error.strerror} (folder {target.parent}); name a writable folder"
        ) from error
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)  # mkstemp makes private files; the result is an ordinary one
        try:
            temporary.replace(target)
        except OSError as error:
            raise InputError(f"cannot write {target}: {error.strerror}; name another file") from error
        _sync(target.parent)
    finally:
        with suppress(FileNotFoundError):
            temporary.unlink()


@contextmanager
def scratch_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a folder beside `path` for files that are not done, and remove it with all that is in it.

    Raises:
        InputError: the folder of `path` does not exist or cannot be written, or `path` is a folder.
    """
    target = Path(path)
    if target.is_dir():
        raise InputError(f"cannot write {target}: it is a folder; name a file in it")
    try:
        scratch = tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.")
    except OSError as error:
        raise InputError(
            f"cannot write {target}: {error.strerror} (folder {target.parent}); name a writable folder"
        ) from error
    with scratch as folder:
        yield Path(folder)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | os.PathLike[str], document: Any) -> None:
    """Write `document` as indented JSON to `path`, whole or not at all."""
    write_bytes(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read a JSON document.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:  # JSONDecodeError, UnicodeDecodeError, nested too deep
        raise InputError(f"{path} is not a JSON document: {error}") from error


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Create the folder `path` where it is not there yet, and return it.

    Raises:
        InputError: it cannot be made, or a file stands in its place.
    """
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {error.strerror}; name another") from error
    return folder


def beside(path: Path, location: str, what: str) -> Path:
    """Return the whole path, links resolved, of a file that the model at `path` names as `location`.

    It has to lie in the folder of `path`, or, where that is a link, in that of what it points to: so do the
    links and the files of a cache of Hugging Face. A model from the net cannot name any other file.

    Args:
        path: of the model.
        location: as the model states it.
        what: of the model is there, for messages.

    Raises:
        InputError: the file is missing, elsewhere or none.
    """
    if location == path.name:
        return path.resolve()
    relative, folders = Path(location), (path.parent.resolve(), path.resolve().parent)
    if not location or relative.is_absolute() or ".." in relative.parts:
        raise InputError(
            f"{what} is at {location!r}, outside the model's folder; put the file beside the model and let "
            "the model name it so"
        )
    files = [Path(os.path.realpath(folder / relative)) for folder in folders]
    file = next(filter(os.path.exists, files), files[0])
    if not any(file.is_relative_to(folder) for folder in folders):
        raise InputError(
            f"{what} is at {location!r}, a link out of the model's folder to {file}; copy it there"
        )
    try:
        regular = stat.S_ISREG(file.stat().st_mode)
    except OSError as error:
        raise InputError(
            f"{what} cannot be read: {location!r}: {error.strerror}; put the file beside the model"
        ) from error
    if not regular:
        raise InputError(f"{what} is at {location!r}, which is no file; put the file there")
    return file


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
