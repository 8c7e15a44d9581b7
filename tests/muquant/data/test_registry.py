import os
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from muquant.base.errors import InputError
from muquant.data import DATASETS, dataset_names, load_dataset


@pytest.fixture
def mnist_root() -> str:
    root = os.environ.get("MUQUANT_DATA", "")
    if not (Path(root) / "MNIST" / "raw").is_dir() or not root:
        pytest.skip("needs MUQUANT_DATA=FOLDER with MNIST/raw in it")
    return root


def write_mnist(root: Path, count: int = 3) -> Path:
    """A tiny MNIST in torchvision's layout, written from the format's description."""
    raw = root / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for prefix in ("train", "t10k"):
        pixels = bytes(i % 256 for i in range(count * 28 * 28))
        (raw / f"{prefix}-images-idx3-ubyte").write_bytes(struct.pack(">4I", 0x803, count, 28, 28) + pixels)
        (raw / f"{prefix}-labels-idx1-ubyte").write_bytes(
            struct.pack(">2I", 0x801, count) + bytes(range(count))
        )
    return raw


def test_digits_are_split_once_and_for_all() -> None:
    train, test = load_dataset("digits", "train"), load_dataset("digits", "test")
    assert (len(train), len(test)) == (1433, 364)
    assert train.input_shape == (1, 8, 8)
    assert train.classes == tuple("0123456789")
    share = test.labels.bincount() / (train.labels.bincount() + test.labels.bincount())
    assert 0.19 < float(share.min()) <= float(share.max()) < 0.21
    bundle = load_digits()
    restored = torch.cat([train.inputs(), test.inputs()]).reshape(-1, 64).numpy() * 16
    np.testing.assert_array_equal(sorted(restored.round().tolist()), sorted(bundle.data.tolist()))
    np.testing.assert_allclose(restored, restored.round(), atol=16 / 255 / 2 + 1e-6)


def test_mnist_is_read_from_torchvisions_layout(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    dataset = load_dataset("mnist", "test", root=tmp_path)
    assert dataset.input_shape == (1, 28, 28)
    assert dataset.labels.tolist() == [0, 1, 2]
    expected = np.arange(3 * 784).reshape(3, 1, 28, 28) % 256
    np.testing.assert_array_equal(dataset.images.numpy(), expected)


def test_an_old_pickled_copy_of_mnist_is_never_opened(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    processed = tmp_path / "MNIST" / "processed"
    processed.mkdir()
    for name in ("training.pt", "test.pt"):
        (processed / name).write_bytes(b"cos\nsystem\n(S'touch opened'\ntR.")
    assert len(load_dataset("mnist", "test", root=tmp_path, download=True)) == 3


def test_the_environment_names_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path)
    monkeypatch.setenv("MUQUANT_DATA", str(tmp_path))
    assert len(load_dataset("mnist", "train")) == 3


@pytest.mark.parametrize(
    ("damage", "culprit"),
    [
        (lambda data: data[:-1], "is damaged"),
        (lambda data: data + b"\0", "is damaged"),
        (lambda data: data[:10], "is not an IDX file"),
        (lambda data: b"", "found nothing"),
        (lambda data: b"\0\0\x08\x01" + data[4:], "is not an IDX file"),
        (lambda data: data[:4] + b"\xff" * 12 + data[16:], "is damaged"),  # promises 2**96 bytes
    ],
)
def test_a_damaged_mnist_file_is_named(tmp_path: Path, damage: object, culprit: str) -> None:
    raw = write_mnist(tmp_path)
    file = raw / "train-images-idx3-ubyte"
    file.write_bytes(damage(file.read_bytes()))  # type: ignore[operator]
    with pytest.raises(InputError, match=culprit) as caught:
        load_dataset("mnist", "train", root=tmp_path)
    assert str(file) in str(caught.value)


def test_mnist_images_and_labels_have_to_agree(tmp_path: Path) -> None:
    raw = write_mnist(tmp_path)
    (raw / "train-labels-idx1-ubyte").write_bytes(struct.pack(">2I", 0x801, 2) + bytes(2))
    with pytest.raises(InputError, match=r"labels as int64 \[3\]"):
        load_dataset("mnist", "train", root=tmp_path)


def test_the_whole_mnist_is_the_published_one(mnist_root: str) -> None:
    train = load_dataset("mnist", "train", root=mnist_root)
    test = load_dataset("mnist", "test", root=mnist_root)
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.mean[0] == pytest.approx(0.1307, abs=1e-4)  # the figures that everybody normalises by
    assert train.std[0] == pytest.approx(0.3081, abs=1e-4)


@pytest.mark.parametrize("name", ["mnist", "cifar10"])
def test_missing_data_says_where_it_was_expected_and_how_to_get_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(InputError, match="--download") as caught:
        load_dataset(name, "train", root=tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    monkeypatch.delenv("MUQUANT_DATA", raising=False)
    with pytest.raises(InputError, match="MUQUANT_DATA=FOLDER"):
        load_dataset(name, "train")


def test_a_changed_cifar_pickle_is_never_opened(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    trap = tmp_path / "sprung"
    for name in (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch", "batches.meta"):
        (folder / name).write_bytes(b"cposix\nsystem\n(S'touch " + str(trap).encode() + b"'\ntR.")
    with pytest.raises(InputError, match="missing or changed"):
        load_dataset("cifar10", "train", root=tmp_path)
    assert not trap.exists()


@pytest.mark.parametrize("name", ["", "imagenet", "digits:x", "digits:", "folder", "folder:"])
def test_an_unknown_name_lists_the_known_ones(name: str) -> None:
    with pytest.raises(InputError, match="digits, mnist, cifar10, folder:PATH"):
        load_dataset(name, "train")


def test_every_entry_has_a_name_to_show() -> None:
    assert [name.partition(":")[0] for name in dataset_names()] == list(DATASETS)


@pytest.mark.parametrize("split", ["", "valid", "TRAIN"])
def test_an_unknown_split_is_refused(split: str) -> None:
    with pytest.raises(InputError, match="train or test"):
        load_dataset("digits", split)


@pytest.mark.parametrize("kind", ["pipe", "device", "folder"])
def test_what_is_no_file_of_mnist_is_not_read(kind: str, tmp_path: Path) -> None:
    path = write_mnist(tmp_path) / "t10k-images-idx3-ubyte"
    path.unlink()
    {"pipe": os.mkfifo, "device": lambda path: path.symlink_to("/dev/zero"), "folder": Path.mkdir}[kind](path)
    with pytest.raises(InputError, match=rf"t10k-images-idx3-ubyte: it is a {kind}"):
        load_dataset("mnist", "test", root=tmp_path)
