"""npz:FILE, arrays of one's own to test with."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from muquant.base.errors import InputError
from muquant.data import Dataset, load_dataset

RANDOM = np.random.default_rng(0)
IMAGES = RANDOM.random((12, 3, 5, 6))
LABELS = np.arange(12) % 4


def write(folder: Path, **arrays: Any) -> str:
    np.savez(folder / "a.npz", **arrays)
    return f"npz:{folder / 'a.npz'}"


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_floats_stay_what_they_are(tmp_path: Path, dtype: type) -> None:
    images: Any = IMAGES.astype(dtype)
    data = load_dataset(write(tmp_path, images=images, labels=LABELS), "test")
    assert (data.split, data.classes, data.indices) == ("test", ("0", "1", "2", "3"), None)
    np.testing.assert_array_equal(data.inputs().numpy(), images.astype(np.float32))
    np.testing.assert_array_equal(
        data.inputs(torch.tensor([3, 1])).numpy(), images[[3, 1]].astype(np.float32)
    )
    assert data.labels.tolist() == LABELS.tolist()
    for channel in range(3):
        column = images.astype(np.float32)[:, channel].astype(np.float64)
        assert data.mean[channel] == pytest.approx(column.mean())
        assert data.std[channel] == pytest.approx(column.std())


def test_what_is_returned_is_a_copy(tmp_path: Path) -> None:
    data = load_dataset(write(tmp_path, images=IMAGES, labels=LABELS), "test")
    data.inputs().zero_()
    assert bool(data.images.any())


def test_pixels_of_8_bits_grey_without_an_axis_and_integers_of_any_type(tmp_path: Path) -> None:
    images = RANDOM.integers(0, 256, (12, 5, 6)).astype(np.uint8)
    text = write(tmp_path, images=images, labels=LABELS.astype(np.uint8), classes=10, extra=np.zeros(3))
    data = load_dataset(text, "test")
    np.testing.assert_array_equal(data.inputs().numpy(), images[:, None].astype(np.float32) / np.float32(255))
    assert (data.labels.dtype, len(data.classes)) == (torch.int64, 10)


def test_places_go_with_their_images(tmp_path: Path) -> None:
    places = np.arange(12) * 7 + 5
    data = load_dataset(write(tmp_path, images=IMAGES, labels=LABELS, indices=places), "test")
    rows = torch.tensor([4, 0, 9])
    assert data.places(rows).tolist() == [33, 5, 68]
    assert data.subset(rows).places(torch.tensor([2, 0])).tolist() == [68, 33]
    bare = load_dataset(write(tmp_path, images=IMAGES, labels=LABELS), "test")
    assert bare.places(rows).tolist() == rows.tolist()


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"labels": LABELS}, "expected an array called images, found 'labels'; write it with numpy.savez"),
        ({"images": IMAGES}, "expected an array called labels, found 'images'"),
        (
            {"images": IMAGES * 255, "labels": LABELS},
            r"expected floats in \[0, 1\], found .* outside in 12 of 12",
        ),
        ({"images": IMAGES - 1e-3, "labels": LABELS}, r"expected floats in \[0, 1\], found -0.0"),
        ({"images": IMAGES * np.nan, "labels": LABELS}, r"expected floats in \[0, 1\], found nan"),
        ({"images": IMAGES[0, 0], "labels": LABELS}, r"images: expected uint8 or floats \[N, C, H, W\] or"),
        ({"images": IMAGES[:0], "labels": LABELS}, r"none of them zero, found float64 \[0, 3, 5, 6\]"),
        ({"images": (255 * IMAGES).astype(int), "labels": LABELS}, "images: expected uint8 or floats"),
        (
            {"images": IMAGES, "labels": LABELS[:-1]},
            r"labels: expected integers from 0, \[12\], found int64 \[11\]",
        ),
        (
            {"images": IMAGES, "labels": LABELS - 1},
            "labels: expected integers from 0, .*, some below 0; convert",
        ),
        (
            {"images": IMAGES, "labels": LABELS / 2},
            r"labels: expected integers from 0, \[12\], found float64",
        ),
        ({"images": IMAGES, "labels": np.eye(4)[LABELS]}, r"found float64 \[12, 4\]"),
        ({"images": IMAGES, "labels": LABELS, "classes": 3}, r"expected labels in 0\.\.2, found 0\.\.3"),
        (
            {"images": IMAGES, "labels": LABELS, "classes": [3, 4]},
            r"classes: expected integers from 0, \[1\]",
        ),
        ({"images": IMAGES, "labels": LABELS, "classes": 1 << 40}, "expected 2 to 1,048,576 classes"),
        (
            {"images": IMAGES, "labels": LABELS * 0},
            "expected 2 to 1,048,576 classes, found 1; give their number",
        ),
        (
            {"images": IMAGES, "labels": LABELS, "indices": LABELS[:3]},
            r"indices: expected integers from 0, \[12\]",
        ),
        ({"images": IMAGES.astype(object), "labels": LABELS}, "holds no arrays of numbers that can be read"),
    ],
)
def test_arrays_that_do_not_fit_are_refused(tmp_path: Path, arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_dataset(write(tmp_path, **arrays), "test")
    assert "\n" not in str(caught.value)


def test_other_files_and_training_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*nowhere\.npz"):
        load_dataset(f"npz:{tmp_path}/nowhere.npz", "test")
    with pytest.raises(InputError, match="expected images to train with, found arrays"):
        load_dataset(write(tmp_path, images=IMAGES, labels=LABELS), "train")
    floats = torch.from_numpy(IMAGES).float()
    with pytest.raises(InputError, match="expected images as uint8"):
        Dataset("made", "train", floats, torch.from_numpy(LABELS), ("a", "b", "c", "d"))
