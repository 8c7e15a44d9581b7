import itertools

import numpy as np
import pytest
import torch
from torch import Generator

from muquant.data import Dataset
from muquant.training.feedback import DIRECTIONS
from muquant.training.feedback.directions import orthonormal


def generators(*seeds: int) -> list[Generator]:
    return [Generator().manual_seed(seed) for seed in seeds]


@pytest.mark.parametrize(("values", "count"), [(64, 1), (64, 40), (64, 64), (6, 16)])
def test_directions_are_orthonormal_in_sets_as_large_as_the_space_allows(values: int, count: int) -> None:
    drawn = orthonormal(values, count, Generator().manual_seed(0)).double()
    assert drawn.shape == (count, values)
    for start in range(0, count, values):
        rows = drawn[start : start + values]
        torch.testing.assert_close(
            rows @ rows.T, torch.eye(len(rows), dtype=torch.float64), rtol=0, atol=1e-6
        )


def test_a_direction_is_as_likely_as_its_opposite() -> None:
    generator = Generator().manual_seed(0)
    drawn = torch.stack([orthonormal(5, 5, generator) for _ in range(400)])
    positive = (drawn > 0).float().mean(0)
    assert float(positive.min()) > 0.4
    assert float(positive.max()) < 0.6


@pytest.mark.parametrize("kind", DIRECTIONS)
def test_directions_of_every_kind_have_unit_length_and_depend_on_the_generator_of_their_image(
    kind: str, grey: Dataset
) -> None:
    draw = DIRECTIONS[kind](grey)
    images, labels = grey.inputs(slice(0, 3)), grey.labels[:3]
    drawn = draw(images, labels, 70, generators(1, 2, 3))
    assert drawn.shape == (3, 70, 1, 8, 8)
    torch.testing.assert_close(drawn.flatten(2).norm(dim=2), torch.ones(3, 70), rtol=0, atol=1e-5)
    alone = draw(images[1:2], labels[1:2], 70, generators(2))
    torch.testing.assert_close(alone[0], drawn[1], rtol=0, atol=0)
    other = draw(images[1:2], labels[1:2], 70, generators(3))
    assert not torch.equal(other[0], drawn[1])


def test_class_means_come_first_and_leave_out_the_own_class(grey: Dataset) -> None:
    drawn = DIRECTIONS["class-means"](grey)(
        grey.inputs(slice(0, 9)), grey.labels[:9], 5, generators(*range(9))
    )
    pixels, labels = grey.images.numpy() / 255, grey.labels.numpy()
    for place in range(9):
        others = [label for label in range(4) if label != labels[place]]
        for rank, label in enumerate(others):
            away = pixels[labels == label].mean(0) - pixels[place]
            np.testing.assert_allclose(drawn[place, rank], away / np.sqrt((away**2).sum()), atol=1e-5)


def test_neighbours_are_the_nearest_of_other_classes(grey: Dataset) -> None:
    drawn = DIRECTIONS["neighbours"](grey)(
        grey.inputs(slice(0, 9)), grey.labels[:9], 30, generators(*range(9))
    )
    pixels, labels = grey.images.numpy() / 255.0, grey.labels.numpy()
    for place in range(9):
        others = np.flatnonzero(labels != labels[place])
        away = (pixels[others] - pixels[place]).reshape(len(others), -1)
        length = np.sqrt((away**2).sum(1))
        likeness = drawn[place].flatten(1).double().numpy() @ (away / length[:, None]).T
        np.testing.assert_allclose(likeness.max(1), 1, atol=1e-6)
        towards = likeness.argmax(1)
        assert len(set(towards.tolist())) == 30
        np.testing.assert_allclose(length[towards], np.sort(length)[:30], atol=1e-6)


def test_few_directions_are_the_first_of_many(grey: Dataset) -> None:
    images, labels = grey.inputs(slice(0, 2)), grey.labels[:2]
    for kind, count in itertools.product(("class-means", "neighbours"), (1, 2)):
        draw = DIRECTIONS[kind](grey)
        few, many = (draw(images, labels, number, generators(1, 2)) for number in (count, 60))
        torch.testing.assert_close(few, many[:, :count], rtol=0, atol=0)
