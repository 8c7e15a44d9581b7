"""What is written is there whole or not at all, where it was asked for, and nothing else is left."""

import errno
import os
import signal
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from muquant.base.errors import InputError
from muquant.base.files import (
    atomic_path,
    beside,
    check_writable,
    make_folder,
    scratch_folder,
    temporary_folder,
    write_bytes,
)
from muquant.base.leftovers import PREFIX, sweeping_in, temporary_folder_in, writing_in


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o444, 0o755])
def test_permissions_stay(mode: int, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    path.chmod(mode)
    write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert mode_of(path) == mode


def test_a_new_file_is_an_ordinary_one(tmp_path: Path) -> None:
    (tmp_path / "other").write_bytes(b"")
    write_bytes(tmp_path / "file", b"new")
    assert mode_of(tmp_path / "file") == mode_of(tmp_path / "other")


def test_a_link_is_followed_and_stays(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    real, link, dangling = tmp_path / "folder" / "real", tmp_path / "link", tmp_path / "dangling"
    real.write_bytes(b"old")
    real.chmod(0o600)
    link.symlink_to("folder/real")
    dangling.symlink_to("folder/new")
    for path in (link, dangling):
        write_bytes(path, b"new")
        assert path.is_symlink()
        assert path.read_bytes() == b"new"
    assert mode_of(real) == 0o600
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["dangling", "folder", "link", "new", "real"]


KINDS: dict[str, Callable[[Path], object]] = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/null"),
}
WRITE: tuple[Callable[[Path], None], ...] = (lambda path: write_bytes(path, b"new"), check_writable)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("write", WRITE)
def test_what_is_no_file_is_not_replaced(kind: str, write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "x"
    KINDS[kind](path)
    before = path.lstat()
    with pytest.raises(InputError, match=f"it is a {kind}"):
        write(path)
    assert os.path.samestat(before, path.lstat())
    assert [each.name for each in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none/x", "No such file.*name a writable folder"),
        ("file/x", "Not a directory.*name a writable folder"),
        ("loop", "loop|symbolic links"),
        ("a\0b", "no NUL"),
        ("\udcff", "not UTF-8"),
        ("a" * 300, "too long; give it a shorter name"),
    ],
)
@pytest.mark.parametrize("write", WRITE)
def test_names_that_cannot_be_written(
    name: str, words: str, write: Callable[[Path], None], tmp_path: Path
) -> None:
    (tmp_path / "file").write_bytes(b"")
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(InputError, match=words):
        write(tmp_path / name)
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "loop"]


def test_a_long_name_is_no_hindrance(tmp_path: Path) -> None:
    write_bytes(tmp_path / ("a" * 255), b"new")
    assert (tmp_path / ("a" * 255)).read_bytes() == b"new"


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (errno.ENOSPC, "free some space"),
        (errno.EFBIG, "ulimit"),
        (errno.EROFS, "writable folder"),
    ],
)
def test_what_the_system_says_is_said_in_a_line(number: int, words: str, tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    for around in (atomic_path(path), scratch_folder(path), temporary_folder()):
        with pytest.raises(InputError, match=f"cannot write .*{os.strerror(number)}") as caught, around:
            raise OSError(number, os.strerror(number))
        assert words in str(caught.value) or "TMPDIR" in str(caught.value)
    with pytest.raises(FileNotFoundError), scratch_folder(path):
        (tmp_path / "none").read_bytes()
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_no_folder_for_temporary_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", "/none")
    with pytest.raises(InputError, match=r"no folder for temporary files .*TMPDIR"), temporary_folder():
        pass


def test_a_folder_where_a_file_stands(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    for name in ("file", "file/x", "a\0b", "a" * 300):
        with pytest.raises(InputError, match=r"cannot (make the folder|use)"):
            make_folder(tmp_path / name)


def test_no_file_is_beside_another_by_a_name_with_nul(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="outside the model's folder"):
        beside(tmp_path / "model.onnx", "a\0b", "w")


KILLED = """
import os, signal, sys
from muquant.base.files import atomic_path, scratch_folder
with scratch_folder(sys.argv[1]) as folder, atomic_path(sys.argv[1]) as path:
    (folder / "part").write_bytes(bytes(100))
    path.write_bytes(bytes(100))
    print("there", flush=True)
    sys.stdin.read() or os.kill(os.getpid(), signal.SIGKILL)
"""


def writer(path: Path) -> "subprocess.Popen[str]":
    """Start a process that has begun to write `path`, waits until its input ends, and then is killed."""
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "there\n"
    return process


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="it has no locks that end with a process")
def test_what_killed_processes_leave_is_swept_and_nothing_else(tmp_path: Path) -> None:
    others = [f"{PREFIX}short", f"{PREFIX}notes.txt", ".other.abcdefgh", f"{PREFIX}UPPERCAS"]
    for name in others:
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(b"")
    (tmp_path / f"{PREFIX}abcdefgh").symlink_to("elsewhere")
    dead, living = writer(tmp_path / "dead.bin"), writer(tmp_path / "living.bin")
    assert len(list(tmp_path.iterdir())) == len(others) + 2 + 4
    dead.communicate()
    assert dead.returncode == -signal.SIGKILL

    code = "import sys; from muquant.base.files import write_bytes; write_bytes(sys.argv[1], b'new')"
    subprocess.run([sys.executable, "-c", code, tmp_path / "new.bin"], check=True)
    left = {path.name for path in tmp_path.iterdir()} - {*others, "elsewhere", f"{PREFIX}abcdefgh", "new.bin"}
    assert len(left) == 2  # of the one that lives
    assert all(name.startswith(PREFIX) for name in left)
    assert (tmp_path / "elsewhere" / "file").exists()
    living.communicate("go on")
    assert living.returncode == 0
    assert (tmp_path / "living.bin").read_bytes() == bytes(100)


@pytest.mark.skipif(sys.platform == "win32", reason="it has no locks that end with a process")
def test_nobody_sweeps_while_another_writes(tmp_path: Path) -> None:
    with writing_in(tmp_path), writing_in(tmp_path), sweeping_in(tmp_path) as alone:
        assert not alone
    with sweeping_in(tmp_path) as alone, sweeping_in(tmp_path) as other:
        assert alone
        assert not other


def test_a_temporary_folder_can_be_written_in_by_who_holds_it(tmp_path: Path) -> None:
    """A lock that kept its holder out would be waited for without an end."""
    with temporary_folder_in(tmp_path) as folder:
        with writing_in(folder):
            (folder / "a").touch()
        with sweeping_in(folder) as alone:
            assert not alone
