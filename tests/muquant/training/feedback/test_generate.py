"""Rounds made from a linear model, for which every margin and every example can be told beforehand."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Generator, Tensor

from muquant import InputError
from muquant.base.tensor_files import read_tensors, write_tensors
from muquant.data import Dataset
from muquant.training.feedback import (
    DIRECTIONS,
    FeedbackConfig,
    FeedbackRound,
    class_levels,
    generate,
    measure_class_margins,
)
from muquant.training.feedback.directions import Directions

if TYPE_CHECKING:
    from tests.muquant.training.feedback.conftest import Linear

CONFIG = FeedbackConfig(
    directions=30,
    nearest=4,
    cap=0.5,
    high_share=0.25,
    high_samples=2,
    medium_samples=5,
    low_samples=9,
    robustness_samples=6,
)
TENSORS = ("images", "labels", "sources", "margins", "factors", "class_margins")


def same(one: FeedbackRound, other: FeedbackRound) -> bool:
    return one.levels == other.levels and all(
        torch.equal(getattr(one, name), getattr(other, name)) for name in TENSORS
    )


def axes(dataset: Dataset) -> Directions:
    """The same directions for every image: one pixel brighter or darker."""

    def draw(images: Tensor, labels: Tensor, count: int, generators: Sequence[Generator]) -> Tensor:
        eye = torch.eye(64)
        return torch.cat([eye, -eye])[:count].reshape(1, count, 1, 8, 8).repeat(len(images), 1, 1, 1, 1)

    return draw


def test_examples_lie_beyond_the_boundary_at_their_factor_times_the_margin(
    linear: "Linear", grey: Dataset
) -> None:
    made = generate(linear, grey, replace(CONFIG, cap=0.3), 0, 1)
    assert len(made) > 50
    torch.testing.assert_close(made.labels, grey.labels[made.sources])
    torch.testing.assert_close(linear(grey.inputs(made.sources)).argmax(1), made.labels)
    clear = made.margins > 0.05  # by so much that rounding to grey levels does not matter
    assert 0.5 < float(clear.float().mean()) < 1
    assert bool((linear(made.images / 255).argmax(1) != made.labels)[clear].all())
    assert float(made.factors.min()) >= 1.5
    assert float(made.factors.max()) < 2.0
    assert len(set(made.factors.tolist())) > 0.99 * len(made)  # each sample has its own generator
    away = (made.images.double() - grey.images[made.sources].double()).flatten(1).norm(dim=1) / 255
    torch.testing.assert_close(away.float(), made.margins * made.factors, rtol=0, atol=0.5 / 255 * 8)


def test_seeds_by_level_and_class_margins_agree_with_the_closed_form(
    linear: "Linear", grey: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(DIRECTIONS, "axes", axes)
    config = replace(CONFIG, direction_kind="axes", directions=128, robustness_samples=80, cap=0.4)
    made = generate(linear, grey, config, 0, 1)
    directions = axes(grey)(grey.inputs(), grey.labels, 128, [])
    exact = linear.margins(grey.inputs(), grey.labels, directions).sort(dim=1).values
    exact = exact.where(exact <= 0.4, torch.inf)
    right = torch.arange(80) % 10 != 0
    unit = 0.4 / 4096
    for label in range(4):
        members = right & (grey.labels == label)
        ordered = exact[members, 0].sort().values
        median = float(ordered[(len(ordered) - 1) // 2])
        assert float(made.class_margins[label]) == pytest.approx(median, abs=unit + 1e-5)
        seeds = set(made.sources[made.labels == label].tolist())
        assert len(seeds) == config.samples(made.levels[label])
        assert all(right[seed] for seed in seeds)
    assert made.levels == class_levels(made.class_margins, config)
    assert sorted(made.levels) == ["high", "low", "low", "medium"]
    for seed in set(made.sources.tolist()):
        nearest = exact[seed][:4]
        found = made.margins[made.sources == seed].double()
        torch.testing.assert_close(found, nearest[nearest.isfinite()], rtol=0, atol=unit + 1e-5)


def test_the_seed_the_number_and_nothing_else_decide(linear: "Linear", grey: Dataset) -> None:
    made = generate(linear, grey, CONFIG, 3, 1)
    assert same(made, generate(linear, grey, CONFIG, 3, 1, batch_size=7))
    assert not same(made, generate(linear, grey, CONFIG, 4, 1))
    assert not same(made, generate(linear, grey, CONFIG, 3, 2))
    state = torch.get_rng_state()
    generate(linear, grey, CONFIG, 3, 1)
    assert torch.equal(state, torch.get_rng_state())


def test_other_samples_and_other_directions_in_another_round(linear: "Linear", grey: Dataset) -> None:
    first, second = (generate(linear, grey, CONFIG, 0, number) for number in (1, 2))
    assert set(first.sources.tolist()) != set(second.sources.tolist())
    both = next(iter(set(first.sources.tolist()) & set(second.sources.tolist())))
    margins = [made.margins[made.sources == both] for made in (first, second)]
    assert not torch.equal(*margins)


def test_class_margins_measured_alone_are_those_of_the_round(linear: "Linear", grey: Dataset) -> None:
    made = generate(linear, grey, CONFIG, 5, 2)
    linear.shown.clear()
    alone = measure_class_margins(linear, grey, CONFIG, 5, 2)
    torch.testing.assert_close(alone, made.class_margins, rtol=0, atol=0)
    assert sum(map(len, linear.shown)) < made.forwards


def test_forwards_are_counted(linear: "Linear", grey: Dataset) -> None:
    made = generate(linear, grey, CONFIG, 0, 1)
    assert made.forwards == sum(map(len, linear.shown))


def test_progress_rises_to_the_total(linear: "Linear", grey: Dataset) -> None:
    reports: list[tuple[int, int]] = []
    made = generate(linear, grey, CONFIG, 0, 1, on_progress=lambda done, total: reports.append((done, total)))
    done = [report[0] for report in reports]
    assert done == sorted(done)
    assert all(now <= total for now, total in reports)
    searched = sum(max(6, CONFIG.samples(level)) for level in made.levels)
    assert reports[-1] == (searched, searched)


def test_a_class_gives_what_it_has(linear: "Linear", grey: Dataset) -> None:
    config = replace(CONFIG, high_samples=90, medium_samples=90, low_samples=90)
    made = generate(linear, grey, config, 0, 1)
    right = torch.arange(80) % 10 != 0
    assert set(made.sources.tolist()) <= set(right.nonzero()[:, 0].tolist())
    assert len(set(made.sources.tolist())) > 60


def test_a_class_that_is_never_right_is_the_weakest_and_has_no_examples(
    linear: "Linear", grey: Dataset
) -> None:
    predicted = linear(grey.inputs()).argmax(1)
    wrong = replace(
        grey, labels=torch.where(predicted == 2, 3, torch.where(grey.labels == 2, 0, grey.labels))
    )
    wrong.labels[0] = 2
    assert int(predicted[0]) != 2
    made = generate(linear, wrong, CONFIG, 0, 1)
    assert float(made.class_margins[2]) == 0
    assert made.levels[2] == "low"
    assert 2 not in made.labels
    assert len(made) > 0


def test_a_class_without_images_is_named(linear: "Linear", grey: Dataset) -> None:
    without = grey.subset((grey.labels != 1).nonzero()[:, 0])
    with pytest.raises(InputError, match=r"feedback learning on grey \(train\).* found none of 'b'"):
        generate(linear, without, CONFIG, 0, 1)


def test_labels_that_never_change_make_an_empty_round(linear: "Linear", grey: Dataset) -> None:
    made = generate(linear, grey, replace(CONFIG, cap=0.001, bisections=2), 0, 1)
    assert len(made) < 4
    assert made.images.shape == (len(made), 1, 8, 8)
    assert bool(made.class_margins.isinf().all())
    assert same(made, FeedbackRound.from_tensors(made.tensors()))


def test_no_samples_make_an_empty_round(linear: "Linear", grey: Dataset) -> None:
    made = generate(linear, grey, replace(CONFIG, high_samples=0, medium_samples=0, low_samples=0), 0, 1)
    assert made.images.shape == (0, 1, 8, 8)
    assert bool((made.class_margins > 0).all())
    assert same(made, FeedbackRound.from_tensors(made.tensors()))


def test_examples_join_the_data_set(linear: "Linear", grey: Dataset) -> None:
    made = generate(linear, grey, CONFIG, 0, 1)
    larger = made.extend(grey)
    assert len(larger) == 80 + len(made)
    torch.testing.assert_close(larger.subset(torch.arange(80)).images, grey.images)
    torch.testing.assert_close(larger.images[80:], made.images)
    torch.testing.assert_close(larger.labels[80:], made.labels)


def test_a_round_survives_a_checkpoint(linear: "Linear", grey: Dataset, tmp_path: object) -> None:
    made = generate(linear, grey, CONFIG, 0, 7)
    path = f"{tmp_path}/round.safetensors"
    write_tensors(path, "test/1", made.tensors(), {})
    read = FeedbackRound.from_tensors(read_tensors(path, "test/1").tensors)
    assert same(made, read)
    assert (read.number, read.forwards) == (7, made.forwards)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("images", None, "expected images of type, dimensions and length .*uint8, 4, .* found None"),
        ("images", torch.zeros(3, 1, 8, 8, dtype=torch.uint8), "expected images"),
        ("labels", torch.zeros(0, dtype=torch.int64), "expected images"),
        ("margins", torch.zeros(2, 2), "expected margins"),
        ("levels", torch.tensor([0, 1, 2, 3]), r"expected levels 0 to 2, found \[0, 1, 2, 3\]"),
        ("class_margins", torch.zeros(5), "expected class_margins"),
        ("counts", torch.zeros(2), "expected counts"),
    ],
)
def test_a_damaged_round_is_named(
    name: str, value: Tensor | None, message: str, linear: "Linear", grey: Dataset
) -> None:
    tensors = generate(linear, grey, CONFIG, 0, 1).tensors()
    if value is None:
        del tensors[name]
    else:
        tensors[name] = value
    with pytest.raises(InputError, match=message):
        FeedbackRound.from_tensors(tensors)
