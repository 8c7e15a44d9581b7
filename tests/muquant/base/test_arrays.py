"""Arrays are read as numpy wrote them, and no header is believed."""

import io
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, strategies as st
from hypothesis.extra import numpy as hnp

from muquant.base import arrays
from muquant.base.arrays import read_arrays
from muquant.base.errors import InputError

ARRAYS = hnp.arrays(
    st.sampled_from(["<f4", ">f8", "<i8", "u1", "?", "<c8", "<f2"]),
    hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4),
)


def header(shape: str, descr: str = "'<f4'", order: str = "False") -> bytes:
    """A .npy header of version 1.0."""
    text = f"{{'descr': {descr}, 'fortran_order': {order}, 'shape': {shape}, }}"
    text += " " * (-(len(text) + 11) % 64) + "\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text.encode()


def zipped(**entries: bytes) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(f"{name}.npy", content)
    return packed.getvalue()


@given(one=ARRAYS, two=ARRAYS, packed=st.booleans())
def test_arrays_are_read_bit_for_bit(
    one: np.ndarray[Any, Any],
    two: np.ndarray[Any, Any],
    packed: bool,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("arrays")
    np.save(folder / "one.npy", np.array(one, order="F"))
    (np.savez_compressed if packed else np.savez)(folder / "both.npz", one=one, two=two)
    found = read_arrays(folder / "both.npz") | read_arrays(folder / "one.npy")
    for name, wanted in {"one": one, "two": two, "": one}.items():
        assert found[name].dtype == wanted.dtype
        assert found[name].shape == wanted.shape
        assert found[name].tobytes() == wanted.tobytes()
        assert found[name].flags.writeable


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (header("(1099511627776,)"), r"its header promises 4398.05 GB"),
        (header("(4294967296, 4294967296)"), "its header promises"),
        (header("(9,)") + bytes(35), r"its header promises 36 B, and 35 B are there"),
        (header("(-1,)") + bytes(8), "expected numbers"),
        (header("(2, True)") + bytes(8), "expected numbers"),
        (header("(1,)", "'|O'") + bytes(8), "object"),
        (header("(1,)", "'<U999999999'"), "descr"),
        (header("(1,)", "'|V4'") + bytes(4), "expected numbers"),
        (header("(1,)", "[('a', '<f4')]") + bytes(4), "expected numbers"),
        (header(str((1,) * 65)) + bytes(4), "dim"),
        (header("(" * 1000 + ")" * 1000), "npy|parse|pars|nested"),
        (header("(1,)")[:20], "npy|EOF|reading"),
        (b"\x93NUMPY\x03\x00" + bytes(100), "version 3.0"),
        (b"\x80\x04K\x01.", "no array"),
        (b"", "no array"),
        (b"PK\x03\x04 and no more", "zip"),
        (zipped(x=header("(2,)") + bytes(4)), "x: its header promises 8 B"),
        (zipped(x=b"text"), "x: it is no array"),
    ],
)
def test_files_that_hold_no_arrays(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(InputError, match=f"holds no arrays of numbers.*({words})"):
        read_arrays(tmp_path / "x")


def test_an_archive_that_unpacks_to_far_more_is_not_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez_compressed(tmp_path / "x.npz", x=np.zeros(1_000_000, np.float32))
    assert read_arrays(tmp_path / "x.npz")["x"].shape == (1_000_000,)
    monkeypatch.setattr(arrays, "MOST_UNPACKED", 3_000_000)
    with pytest.raises(InputError, match=r"unpack to 4.00 MB; expected at most 3.00 MB more"):
        read_arrays(tmp_path / "x.npz")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_two_arrays_of_one_name_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        for value in (1.0, 2.0):
            one = io.BytesIO()
            np.save(one, np.array(value))
            archive.writestr("x.npy", one.getvalue())
    with pytest.raises(InputError, match="two arrays have one name"):
        read_arrays(tmp_path / "x.npz")


@given(data=st.data())
def test_changed_bytes_end_in_an_error_or_in_arrays(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    content = bytearray(
        data.draw(st.sampled_from([zipped(x=header("(2, 2)") + bytes(16)), header("(2,)") + bytes(8)]))
    )
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("changed") / "x"
    path.write_bytes(content)
    try:
        found = read_arrays(path)
    except InputError:
        return
    assert sum(array.nbytes for array in found.values()) <= len(content)
