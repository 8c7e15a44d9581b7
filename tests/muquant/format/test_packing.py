from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp

from muquant import InputError
from muquant.format.packing import Bytes, look_up, pack, packed_size, unpack

WIDTHS = range(1, 9)


def bits_of(codes: Bytes, bits: int) -> Bytes:
    """Each code's bits, lowest first, one after another, then zeros to whole runs of 8 codes."""
    table = (codes[:, None] >> np.arange(bits)) & 1
    stream = table.reshape(-1).astype(np.uint8)
    return np.pad(stream, (0, -len(codes) % 8 * bits))


@pytest.mark.parametrize(
    ("bits", "codes", "expected"),
    [
        (3, [], []),
        (3, [5], [0b101, 0, 0]),
        # 0..7: ..10 001 000, 0 101 100 01 -> lowest bits first in each byte
        (3, [0, 1, 2, 3, 4, 5, 6, 7], [0b10_001_000, 0b1_100_011_0, 0b111_110_10]),
        (3, [7] * 8, [255, 255, 255]),
        (3, [1] * 9, [0b01_001_001, 0b1_001_001_0, 0b001_001_00, 1, 0, 0]),
        (2, [0, 1, 2, 3], [0b11_10_01_00, 0]),
        (4, [1, 2, 15], [0x21, 0x0F, 0, 0]),
        (5, [31, 0, 31], [0b00011111, 0b01111100, 0, 0, 0]),
        (6, [63, 1], [0b01_111111, 0, 0, 0, 0, 0]),
        (7, [127, 1], [0b1_1111111, 0, 0, 0, 0, 0, 0]),
        (8, [1, 2, 255], [1, 2, 255, 0, 0, 0, 0, 0]),
        (1, [1, 0, 1, 1, 0, 0, 0, 1, 1], [0b10001101, 1]),
    ],
)
def test_literal_bytes(bits: int, codes: list[int], expected: list[int]) -> None:
    packed = pack(np.array(codes, np.uint8), bits)
    assert packed.tolist() == expected
    assert packed.dtype == np.uint8
    assert unpack(packed, bits, len(codes)).tolist() == codes


@pytest.mark.parametrize("bits", WIDTHS)
def test_packing_is_a_stream_of_bits_and_comes_back(bits: int) -> None:
    for count in (*range(18), 63, 64, 65, 999):
        codes = np.random.default_rng(count).integers(0, 2**bits, count, np.uint8)
        packed, said = pack(codes, bits), f"{count} codes"
        assert packed.size == packed_size(count, bits) == (count + 7) // 8 * bits, said
        stream = np.unpackbits(packed, bitorder="little")
        np.testing.assert_array_equal(stream, bits_of(codes, bits), err_msg=said)
        np.testing.assert_array_equal(unpack(packed, bits, count), codes, err_msg=said)


@settings(deadline=None)  # a busy machine is no failure
@given(st.data(), st.integers(1, 8))
def test_any_codes_come_back(data: st.DataObject, bits: int) -> None:
    codes = data.draw(hnp.arrays(np.uint8, st.integers(0, 100), elements=st.integers(0, 2**bits - 1)))
    packed = pack(codes, bits)
    np.testing.assert_array_equal(np.unpackbits(packed, bitorder="little"), bits_of(codes, bits))
    np.testing.assert_array_equal(unpack(packed, bits, len(codes)), codes)


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16])
@pytest.mark.parametrize("bits", WIDTHS)
def test_looking_up_is_unpacking_and_indexing(bits: int, dtype: type[np.integer[Any]]) -> None:
    for count in (0, 1, 8, 1001, 2**17 + 3):
        rng = np.random.default_rng(count)
        codes = rng.integers(0, 2**bits, count, np.uint8)
        values = rng.integers(-100, 100, 2**bits).astype(dtype)
        found = look_up(pack(codes, bits), bits, count, values)
        assert found.dtype == dtype, count
        np.testing.assert_array_equal(found, values[codes], err_msg=f"{count} codes")


def test_packing_leaves_its_input_alone() -> None:
    codes = np.arange(8, dtype=np.uint8)
    codes.flags.writeable = False
    packed = pack(codes, 3)
    packed.flags.writeable = False
    assert unpack(packed, 3, 8).tolist() == codes.tolist()


def test_codes_of_a_strided_array_are_packed_in_its_order() -> None:
    codes = np.arange(64, dtype=np.uint8).reshape(8, 8).T.reshape(-1)[::2]
    np.testing.assert_array_equal(pack(codes, 6), pack(codes.copy(), 6))


@pytest.mark.parametrize("bits", range(1, 8))
def test_a_code_that_does_not_fit_is_refused(bits: int) -> None:
    codes = np.zeros(11, np.uint8)
    codes[10] = 2**bits
    with pytest.raises(InputError, match=f"code {2**bits} does not fit in {bits} bits"):
        pack(codes, bits)


@pytest.mark.parametrize("size", [0, 1, 5, 7, 8, 9, 12])
def test_a_wrong_number_of_bytes_is_refused(size: int) -> None:
    with pytest.raises(InputError, match="expected 6 bytes"):
        unpack(np.zeros(size, np.uint8), 3, 10)
