"""Files that are written whole or not at all, and files that others refer to."""

import errno
import json
import os
import re
import stat
import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from muquant.base.errors import InputError, first_line
from muquant.base.leftovers import temporary_file, temporary_folder_in
from muquant.base.reading import checked_path, kind_of

_FULL = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space, or name one on another disk")
_ADVICE = {
    **_FULL,
    errno.EFBIG: "raise the limit on the size of files, see ulimit -f",
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR), "name a writable folder"
    ),
    errno.ENAMETOOLONG: "give it a shorter name",
}
_NO_ROOM = (*_FULL, errno.EFBIG, errno.EROFS, errno.EIO)
_SUFFIX = re.compile(r"\.\w{1,16}", re.ASCII)


@contextmanager
def atomic_path(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is synced and renamed over `path`.

    Whatever fails inside the block leaves `path` as it was and removes the temporary file. Where `path` is a
    link, the file that it points to is replaced. A file that was there keeps its permissions.

    Raises:
        InputError: the folder does not exist or cannot be written, `path` is a folder, a pipe, a socket or a
            device, or the system does not take what the block writes.
    """
    with _writing(path):
        target = target_of(path)
        suffix = target.suffix if _SUFFIX.fullmatch(target.suffix) else ""
        with temporary_file(target.parent, suffix) as temporary:
            yield temporary
            put_in_place(temporary, target)


@contextmanager
def scratch_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a folder beside `path` for files that are not done, and remove it with all that is in it.

    Raises:
        InputError: as in `atomic_path`; or there is no room for what the block writes.
    """
    with ExitStack() as stack:
        with _writing(path):
            folder = stack.enter_context(temporary_folder_in(target_of(path).parent))
        with _writing(path, _NO_ROOM):
            yield folder


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Yield a folder among the system's temporary files, and remove it with all that is in it.

    Raises:
        InputError: it cannot be made, or there is no room for what the block writes.
    """
    advice = "let TMPDIR name a folder that can be written and has room"
    with ExitStack() as stack:
        try:
            root = tempfile.gettempdir()
            folder = stack.enter_context(temporary_folder_in(root))
        except OSError as error:
            raise InputError(
                f"there is no folder for temporary files ({_reason(error)}); {advice}"
            ) from error
        with _writing(root, _NO_ROOM, advice):
            yield folder


def check_writable(path: str | os.PathLike[str]) -> None:
    """Refuse a file that could not be written, before hours of work.

    Raises:
        InputError: as in `atomic_path`.
    """
    with scratch_folder(path):
        pass


def target_of(path: str | os.PathLike[str]) -> Path:
    """Return where a file has to be put so that `path` names it: where `path` points to, if it is a link.

    Raises:
        InputError: it is something else than a file, or its name cannot be used.
        OSError: the system cannot say what is there.
    """
    target = checked_path(path)
    if target.is_symlink():
        target = Path(os.path.realpath(target))
    with suppress(FileNotFoundError):
        mode = target.stat().st_mode
        if stat.S_ISDIR(mode):
            raise InputError(f"cannot write {target}: it is a folder; name a file in it")
        if not stat.S_ISREG(mode):
            raise InputError(f"cannot write {target}: it is a {kind_of(mode)}, no file; name a file")
    return target


def put_in_place(made: Path, target: Path) -> None:
    """Let `made`, a whole file on the same file system, be `target`, with the permissions of what was there.

    Raises:
        OSError: the system says no; `target` is as it was.
    """
    _sync(made)
    try:
        before = target.stat()
    except FileNotFoundError:
        umask = os.umask(0)
        os.umask(umask)
        made.chmod(0o666 & ~umask)  # temporary files are private; the result is an ordinary one
    else:
        if os.name == "posix":
            with suppress(PermissionError):  # only some users may give files away
                os.chown(made, before.st_uid, before.st_gid)
        made.chmod(stat.S_IMODE(before.st_mode) & 0o777)
    made.replace(target)
    with suppress(OSError):  # it is there; not all file systems sync folders
        _sync(target.parent)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | os.PathLike[str], document: Any) -> None:
    """Write `document` as indented JSON to `path`, whole or not at all."""
    write_bytes(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Create the folder `path` where it is not there yet, and return it.

    Raises:
        InputError: it cannot be made, or a file stands in its place.
    """
    folder = checked_path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"cannot make the folder {folder}: {_reason(error)}; name another") from error
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
    if not location or relative.is_absolute() or ".." in relative.parts or "\0" in location:
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


@contextmanager
def _writing(
    path: str | os.PathLike[str], errors: Collection[int] | None = None, advice: str | None = None
) -> Iterator[None]:
    """Turn what the system says to writing `path` into an `InputError`.

    Args:
        path: what is written.
        errors: numbers of the errors that are about writing; None for all.
        advice: ends the message; by default what fits the error.
    """
    try:
        yield
    except OSError as error:
        if errors is not None and error.errno not in errors:
            raise
        raise InputError(
            f"cannot write {os.fspath(path)}: {_reason(error)}; "
            f"{advice or _ADVICE.get(error.errno or 0, 'name another file')}"
        ) from error


def _reason(error: OSError) -> str:
    return error.strerror or first_line(error)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
