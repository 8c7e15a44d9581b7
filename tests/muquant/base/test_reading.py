"""What is read is a regular file, and JSON in it has no surprises."""

import json
import math
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, strategies as st

from muquant.base import reading
from muquant.base.errors import InputError
from muquant.base.files import write_json
from muquant.base.reading import open_file, parse_json, read_bytes, read_json, require_file

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**64) + 1, 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
)


def make_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(path))


KINDS: dict[str, Callable[[Path], Any]] = {
    "folder": Path.mkdir,
    "pipe": os.mkfifo,
    "device": lambda path: path.symlink_to("/dev/zero"),
    "socket": make_socket,
}


@pytest.mark.parametrize("read", [open_file, require_file, read_bytes, read_json])
@pytest.mark.parametrize("kind", KINDS)
def test_what_is_no_file_is_not_waited_for(
    kind: str, read: Callable[[Path], Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    KINDS[kind](Path("x"))
    with pytest.raises(InputError, match=f"cannot read x: it is a {kind}, no file"):
        read(Path("x"))


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("none", "No such file"),
        ("a\0b", "no NUL"),
        ("\udcff", "not UTF-8"),
        ("a" * 300, "name too long"),
        ("/", "a folder"),
    ],
)
def test_names_that_name_no_file(name: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=words):
        read_bytes(tmp_path / name)


def test_a_link_to_a_file_is_read_and_one_to_itself_is_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"content")
    (tmp_path / "link").symlink_to("file")
    (tmp_path / "loop").symlink_to("loop")
    assert read_bytes(tmp_path / "link", largest=7) == b"content"
    with pytest.raises(InputError, match=r"holds 7 B; expected at most 6 B"):
        read_bytes(tmp_path / "link", largest=6)
    with pytest.raises(InputError, match="loop"):
        read_bytes(tmp_path / "loop")


@given(VALUES)
def test_what_json_holds_is_read_as_it_was(value: Any) -> None:
    assert parse_json(json.dumps(value), "it") == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode(), "it") == value


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("NaN", "NaN is no number"),
        ("[-Infinity]", "Infinity is no number"),
        ("1e400", "beyond what a float holds"),
        ('{"a": 1' + 400 * "0" + "}", "beyond 64 bits"),
        (str(2**64), "beyond 64 bits"),
        ("9" * 100_000, "beyond 64 bits"),
        ("[" * 100_000, "recursion"),
        ("[" * 65 + "]" * 65, "nested deeper than 64"),
        ('{"a":' * 65 + "{}" + "}" * 65, "nested deeper than 64"),
        (r'"\ud800"', "surrogates"),
        ("{", "property name"),
        ("", "Expecting value"),
        (b"\xff", "utf-8"),
        ("0x10", "Extra data"),
    ],
)
def test_json_that_cannot_be_used(text: str | bytes, words: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"^it is not a JSON document that can be used: .*{words}"):
        parse_json(text, "it")
    (tmp_path / "x").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=words):
        read_json(tmp_path / "x")


def test_depth_of_64_is_read() -> None:
    assert parse_json("[" * 64 + "]" * 64, "it") is not None


def test_large_documents_are_not_parsed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "x", [math.pi] * 10)
    assert read_json(tmp_path / "x") == [math.pi] * 10
    monkeypatch.setattr(reading, "LARGEST_JSON", 100)
    with pytest.raises(InputError, match="expected at most 100 B"):
        read_json(tmp_path / "x")
    with pytest.raises(InputError, match="expected at most 100 B"):
        parse_json("[" + " " * 100 + "]", "it")
