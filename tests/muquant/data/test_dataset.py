import numpy as np
import pytest
import torch
from torch import Tensor

from muquant.base.errors import InputError
from muquant.data import Dataset


def make(images: Tensor | None = None, labels: Tensor | None = None, split: str = "train") -> Dataset:
    generator = torch.Generator().manual_seed(0)
    if images is None:
        images = torch.randint(256, (100, 3, 4, 5), dtype=torch.uint8, generator=generator)
    if labels is None:
        labels = torch.arange(len(images)) % 4
    return Dataset("made", split, images, labels, ("a", "b", "c", "d"))


def test_inputs_are_the_images_in_0_to_1() -> None:
    dataset = make()
    assert len(dataset) == 100
    assert dataset.input_shape == (3, 4, 5)
    before = dataset.images.clone()
    pixels = dataset.images.numpy().astype(np.float32) / np.float32(255)
    for indices, rows in (
        (None, range(100)),
        (slice(3, 9), range(3, 9)),
        (torch.tensor([5, 2, 2]), (5, 2, 2)),
    ):
        inputs = dataset.inputs(indices)
        assert inputs.dtype == torch.float32
        np.testing.assert_array_equal(inputs.numpy(), pixels[list(rows)])
    torch.testing.assert_close(dataset.images, before, rtol=0, atol=0)


def test_all_256_levels_are_exact() -> None:
    levels = torch.arange(256, dtype=torch.uint8).reshape(1, 1, 16, 16)
    inputs = make(levels, torch.zeros(1, dtype=torch.int64)).inputs()
    assert float(inputs.min()) == 0.0
    assert float(inputs.max()) == 1.0
    torch.testing.assert_close((inputs * 255).round().to(torch.uint8), levels, rtol=0, atol=0)


def test_mean_and_std_agree_with_numpy() -> None:
    dataset = make()
    pixels = dataset.images.numpy().astype(np.float64) / 255
    np.testing.assert_allclose(dataset.mean, pixels.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(dataset.std, pixels.std(axis=(0, 2, 3)), rtol=1e-12)


def test_a_constant_channel_stays_divisible() -> None:
    dataset = make(torch.full((8, 1, 4, 4), 51, dtype=torch.uint8))
    assert dataset.mean[0] == pytest.approx(0.2)
    assert dataset.std == (1 / 255,)


def test_the_parts_of_a_split_are_the_whole_and_are_stratified() -> None:
    labels = torch.tensor([0] * 60 + [1] * 20 + [2] * 10 + [3] * 10)
    images = torch.arange(100, dtype=torch.uint8).reshape(100, 1, 1, 1)
    rest, held_out = make(images, labels).split_off(0.2, seed=5)
    assert held_out.labels.bincount().tolist() == [12, 4, 2, 2]
    together = torch.cat([rest.images, held_out.images]).flatten().sort().values
    torch.testing.assert_close(together, images.flatten(), rtol=0, atol=0)
    for part in (rest, held_out):
        torch.testing.assert_close(labels[part.images.flatten().long()], part.labels, rtol=0, atol=0)


def test_the_split_is_a_function_of_the_seed() -> None:
    dataset = make()
    first, again, other = (dataset.split_off(0.3, seed)[1].digest for seed in (1, 1, 2))
    assert first == again
    assert first != other


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, float("nan"), 0.001, 0.999])
def test_a_split_with_an_empty_part_is_refused(fraction: float) -> None:
    with pytest.raises(InputError, match="fraction"):
        make().split_off(fraction, seed=0)


def test_the_digest_tells_data_apart() -> None:
    dataset = make()
    other_pixels = dataset.images.clone()
    other_pixels[7, 1, 2, 3] ^= 1
    other_labels = dataset.labels.clone()
    other_labels[7] = 0
    reshaped = dataset.images.reshape(100, 3, 5, 4)
    digests = {
        dataset.digest,
        make(other_pixels).digest,
        make(labels=other_labels).digest,
        make(reshaped).digest,
    }
    assert len(digests) == 4
    assert make().digest == dataset.digest


@pytest.mark.parametrize(
    ("images", "labels", "split", "culprit"),
    [
        (torch.zeros(4, 1, 2, 2), None, "train", "images as uint8"),
        (torch.zeros(4, 2, 2, dtype=torch.uint8), None, "train", "images as uint8"),
        (torch.zeros(0, 1, 2, 2, dtype=torch.uint8), None, "train", "images as uint8"),
        (None, torch.zeros(99, dtype=torch.int64), "train", "labels as int64"),
        (None, torch.zeros(100), "train", "labels as int64"),
        (None, torch.full((100,), 4), "train", "found 4..4"),
        (None, torch.full((100,), -1), "train", "found -1..-1"),
        (None, None, "validation", "validation"),
    ],
)
def test_wrong_tensors_are_refused(
    images: Tensor | None, labels: Tensor | None, split: str, culprit: str
) -> None:
    with pytest.raises(InputError, match=culprit):
        make(images, labels, split)
