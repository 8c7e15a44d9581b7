"""A case: what a reader is given."""

import os
import stat
from collections.abc import Callable
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory

Case = dict[str, bytes]
"""Path in a folder -> content, or a `Special`."""

Mutation = Callable[[bytes, Random], bytes]
"""A file's content, changed."""


class Special(bytes):
    """What is no file, by its kind: "fifo", "folder", or "link TARGET"."""


SPECIAL = (b"fifo", b"folder", b"link /dev/zero", b"link no", b"link .", b"link /etc/hostname")


def write_case(case: Case, folder: Path) -> Path:
    """Write all files below a folder, and return it."""
    for name, content in case.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if not isinstance(content, Special):
            path.write_bytes(content)
        elif content == b"fifo":
            os.mkfifo(path)
        elif content == b"folder":
            path.mkdir()
        else:
            path.symlink_to(content.decode().removeprefix("link "))
    return folder


def read_case(folder: Path) -> Case:
    """Return all that is below a folder; of folders those in which nothing is."""
    case: Case = {}
    for path in sorted(folder.rglob("*")):
        mode, name = path.lstat().st_mode, str(path.relative_to(folder))
        if stat.S_ISLNK(mode):
            case[name] = Special(f"link {path.readlink()}".encode())
        elif stat.S_ISFIFO(mode):
            case[name] = Special(b"fifo")
        elif stat.S_ISREG(mode):
            case[name] = path.read_bytes()
        elif not any(path.iterdir()):
            case[name] = Special(b"folder")
    return case


def change(case: Case, name: str, mutate: Mutation, random: Random) -> Case:
    """Return the case with one file changed; once in a while it is gone, another one, or no file."""
    draw = random.randrange(40)
    if draw == 0:
        return {key: content for key, content in case.items() if key != name}
    if draw == 1:
        return {**case, name: random.choice(list(case.values()))}
    if draw == 2:
        return {**case, name: Special(random.choice(SPECIAL))}
    return {**case, name: mutate(case[name], random)}


def made(make: Callable[[Path], object]) -> Case:
    """Return the files that a function leaves in a folder."""
    with TemporaryDirectory() as folder:
        make(Path(folder))
        return read_case(Path(folder))
