import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from muquant.base.errors import InputError
from muquant.data import folder, load_dataset


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Two splits of classes "cat" and "dog", three RGB images of 6x4 pixels in each."""
    generator = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("dog", "cat"):
            (tmp_path / split / name).mkdir(parents=True)
            for index in range(3):
                pixels = generator.integers(256, size=(4, 6, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / split / name / f"{index}.png")
    return tmp_path


def test_a_tree_is_read_in_the_order_of_names(tree: Path) -> None:
    (tree / "train" / "cat" / "notes.txt").write_text("not an image")
    (tree / "train" / ".thumbnails").mkdir()
    dataset = load_dataset(f"folder:{tree}", "train")
    assert dataset.classes == ("cat", "dog")
    assert dataset.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert dataset.input_shape == (3, 4, 6)
    expected = np.asarray(Image.open(tree / "train" / "dog" / "1.png")).transpose(2, 0, 1)
    np.testing.assert_array_equal(dataset.images[4].numpy(), expected)


def test_grey_images_have_one_channel(tree: Path) -> None:
    for path in tree.rglob("*.png"):
        with Image.open(path) as image:
            grey = image.convert("L")
        grey.save(path)
    dataset = load_dataset(f"folder:{tree}", "test")
    assert dataset.input_shape == (1, 4, 6)
    expected = np.asarray(Image.open(tree / "test" / "cat" / "0.png"))
    np.testing.assert_array_equal(dataset.images[0, 0].numpy(), expected)


def test_a_class_that_the_test_split_lacks_keeps_its_number(tree: Path) -> None:
    for path in (tree / "test" / "cat").iterdir():
        path.unlink()
    (tree / "test" / "cat").rmdir()
    dataset = load_dataset(f"folder:{tree}", "test")
    assert dataset.classes == ("cat", "dog")
    assert dataset.labels.tolist() == [1, 1, 1]


@pytest.mark.parametrize("suffix", ["bmp", "jpg", "pgm", "png", "tif", "webp"])
def test_the_formats_of_data_sets_are_read(tmp_path: Path, suffix: str) -> None:
    grey = np.full((8, 8), 100, np.uint8)
    for split in ("train", "test"):
        (tmp_path / split / "a").mkdir(parents=True)
        Image.fromarray(grey).convert("L" if suffix == "pgm" else "RGB").save(
            tmp_path / split / "a" / f"0.{suffix}"
        )
    assert abs(load_dataset(f"folder:{tmp_path}", "test").images.int() - 100).max() <= 2


def drop_split(tree: Path) -> str:
    (tree / "test").rename(tree / "elsewhere")
    return str(tree / "test")


def empty_split(tree: Path) -> str:
    drop_split(tree)
    (tree / "test").mkdir()
    return "one folder of images for each class, found none"


def empty_class(tree: Path) -> str:
    for path in (tree / "test" / "dog").iterdir():
        path.unlink()
    return str(tree / "test" / "dog")


def strange_class(tree: Path) -> str:
    (tree / "test" / "dog").rename(tree / "test" / "fox")
    return "found 'fox'"


def other_size(tree: Path) -> str:
    Image.new("RGB", (6, 5)).save(tree / "test" / "dog" / "1.png")
    return f"{tree / 'test' / 'dog' / '1.png'}: expected 6x4"


def other_mode(tree: Path) -> str:
    Image.new("L", (6, 4)).save(tree / "test" / "dog" / "1.png")
    return f"{tree / 'test' / 'dog' / '1.png'}: expected 6x4 pixels, mode RGB"


def transparent(tree: Path) -> str:
    Image.new("RGBA", (6, 4)).save(tree / "test" / "cat" / "0.png")
    return f"{tree / 'test' / 'cat' / '0.png'}: expected an 8-bit grey"


def not_an_image(tree: Path) -> str:
    (tree / "test" / "dog" / "2.png").write_bytes(b"GIF? no.")
    return f"cannot read {tree / 'test' / 'dog' / '2.png'}"


def another_programs(tree: Path) -> str:
    path = tree / "test" / "dog" / "2.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 6 4\n%%EndComments\nshowpage\n")
    return f"cannot read {path}: expected an image (BMP, JPEG"


def truncated(tree: Path) -> str:
    path = tree / "test" / "dog" / "2.png"
    path.write_bytes(path.read_bytes()[:-40])
    return f"cannot read {path}"


@pytest.mark.parametrize(
    "spoil",
    [
        drop_split,
        empty_split,
        empty_class,
        strange_class,
        other_size,
        other_mode,
        transparent,
        not_an_image,
        another_programs,
        truncated,
    ],
)
def test_a_fault_is_named(tree: Path, spoil: Callable[[Path], str]) -> None:
    message = spoil(tree)
    with pytest.raises(InputError) as caught:
        load_dataset(f"folder:{tree}", "test")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_size_is_checked_before_anything_is_allocated(
    tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*arguments: object) -> None:
        raise AssertionError("allocated")

    monkeypatch.setattr(folder, "MAX_BYTES", 6 * 3 * 4 * 6 - 1)
    monkeypatch.setattr(np, "empty", never)
    with pytest.raises(InputError, match="need 432 bytes"):
        load_dataset(f"folder:{tree}", "train")


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_what_is_no_file_is_not_opened(kind: str, tree: Path) -> None:
    path = tree / "train" / "dog" / "2.png"
    path.unlink()
    {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero")}[kind](path)
    with pytest.raises(InputError, match=rf"2\.png: it is a {kind}"):
        load_dataset(f"folder:{tree}", "train")
