import pytest
import torch
from torch import Generator, Tensor
from torch.nn import functional

from muquant.training import AUGMENTATIONS
from muquant.training.augmentations import cut_and_mix


def seeded(seed: int = 0) -> Generator:
    return Generator().manual_seed(seed)


def windows(image: Tensor, reach: int, mode: str) -> list[Tensor]:
    """Every place that the image can be moved to, one by one."""
    height, width = image.shape[1:]
    padded = functional.pad(image[None], (reach,) * 4, mode=mode)[0]
    size = 2 * reach + 1
    return [padded[:, y : y + height, x : x + width] for y in range(size) for x in range(size)]


@pytest.mark.parametrize("name", AUGMENTATIONS)
@pytest.mark.parametrize("shape", [(5, 1, 8, 8), (5, 3, 32, 32), (1, 2, 4, 9)], ids=str)
def test_shape_range_and_determinism(name: str, shape: tuple[int, ...]) -> None:
    images = torch.rand(shape, generator=seeded())
    before = images.clone()
    first = AUGMENTATIONS[name](images, seeded(1))
    assert first.shape == images.shape
    assert first.dtype == torch.float32
    assert 0 <= float(first.min()) <= float(first.max()) <= 1
    torch.testing.assert_close(images, before, rtol=0, atol=0)
    torch.testing.assert_close(AUGMENTATIONS[name](images, seeded(1)), first, rtol=0, atol=0)


def test_none_changes_nothing() -> None:
    images = torch.rand(5, 1, 8, 8)
    torch.testing.assert_close(AUGMENTATIONS["none"](images, seeded()), images, rtol=0, atol=0)


@pytest.mark.parametrize(("side", "reach"), [(8, 1), (28, 2)])
def test_shift_moves_to_every_place_in_reach_and_to_no_other(side: int, reach: int) -> None:
    image = torch.rand(2, side, side, generator=seeded())
    moved = AUGMENTATIONS["shift"](image.expand(1000, -1, -1, -1), seeded(2))
    counts = [int((moved == place).flatten(1).all(1).sum()) for place in windows(image, reach, "constant")]
    assert sum(counts) == 1000
    assert min(counts) > 0


def test_flip_crop_mirrors_half_and_moves_to_every_place() -> None:
    image = torch.rand(3, 16, 16, generator=seeded())
    moved = AUGMENTATIONS["flip-crop"](image.expand(2000, -1, -1, -1), seeded(3))
    counts = [
        [int((moved == place).flatten(1).all(1).sum()) for place in windows(source, 2, "reflect")]
        for source in (image, image.flip(2))
    ]
    assert sum(map(sum, counts)) == 2000
    assert min(map(min, counts)) > 0
    assert 900 < sum(counts[1]) < 1100


def test_cutout_hides_a_square_anywhere_and_nothing_else() -> None:
    images = torch.full((5000, 3, 12, 9), 0.25)
    hidden = AUGMENTATIONS["flip-crop-cutout"](images, seeded(4)) == 0.5
    assert bool((hidden == hidden[:, :1]).all())  # in all channels alike
    spans = [hidden[:, 0].any(2).sum(1), hidden[:, 0].any(1).sum(1)]
    assert [(int(span.min()), int(span.max())) for span in spans] == [(2, 3), (2, 3)]  # 9 // 3, or cut off
    assert bool((hidden[:, 0].sum((1, 2)) == spans[0] * spans[1]).all())  # a full rectangle
    places = hidden[:, 0].float().mean(0)
    corner, middle = 4 / (12 * 9), 9 / (12 * 9)  # centres from which a pixel is hidden
    assert float(places[0, 0]) == pytest.approx(corner, abs=0.012)
    assert float(places[6, 4]) == pytest.approx(middle, abs=0.017)


def test_one_batch_moves_its_images_apart() -> None:
    images = torch.rand(1, 1, 28, 28).expand(50, -1, -1, -1)
    assert len({image.numpy().tobytes() for image in AUGMENTATIONS["shift"](images, seeded())}) > 10


def test_cutmix_puts_a_rectangle_of_the_next_image_in_and_counts_both_labels_by_area() -> None:
    images = torch.rand(6, 3, 12, 9, generator=seeded())
    labels = torch.tensor([0, 1, 2, 3, 3, 1])
    shares = []
    for seed in range(200):
        mixed, targets = cut_and_mix(images, labels, 5, 1.0, seed)
        other = (mixed != images)[:, 0]  # [6, 12, 9]
        assert torch.equal(mixed, torch.where(other[:, None], images.roll(1, 0), images))
        assert torch.equal(other, other[:1].expand_as(other))  # the same place in all
        rows, columns = other[0].any(1), other[0].any(0)
        assert torch.equal(other[0], rows[:, None] & columns)
        stays = 1 - float(other[0].float().mean())
        expected = stays * functional.one_hot(labels, 5) + (1 - stays) * functional.one_hot(labels.roll(1), 5)
        torch.testing.assert_close(targets, expected)
        shares.append(stays)
    assert 0.5 < sum(shares) / 200 < 0.75  # 1/2 of Beta(1, 1), and what leaves the image is cut off


def test_cutmix_draws_from_its_seed_alone() -> None:
    images, labels = torch.rand(6, 1, 8, 8), torch.arange(6)
    torch.manual_seed(1)
    first = cut_and_mix(images, labels, 6, 1.0, 7)
    after = torch.rand(3)
    torch.manual_seed(1)
    assert torch.equal(after, torch.rand(3))  # the global source is as before
    for one, other in zip(first, cut_and_mix(images, labels, 6, 1.0, 7), strict=True):
        assert torch.equal(one, other)
