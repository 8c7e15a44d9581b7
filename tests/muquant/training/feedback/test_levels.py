import itertools

import pytest
import torch

from muquant.training.feedback import FeedbackConfig, class_levels

INF = float("inf")


@pytest.mark.parametrize(
    ("classes", "low", "medium", "high"),
    [
        (2, 1, 1, 0),
        (3, 2, 1, 0),
        (4, 2, 2, 0),
        (5, 3, 1, 1),
        (6, 3, 2, 1),
        (7, 4, 2, 1),
        (9, 5, 3, 1),
        (10, 5, 3, 2),
        (43, 22, 13, 8),
        (100, 50, 30, 20),
    ],
)
def test_classes_by_level_with_the_papers_shares(classes: int, low: int, medium: int, high: int) -> None:
    margins = torch.arange(classes).float()
    expected = ("low",) * low + ("medium",) * medium + ("high",) * high
    assert class_levels(margins, FeedbackConfig()) == expected
    assert class_levels(margins.flip(0), FeedbackConfig()) == expected[::-1]


def test_every_order_of_five_margins() -> None:
    for margins in itertools.permutations([0.0, 0.5, 2.0, 7.0, INF]):
        names = {0.0: "low", 0.5: "low", 2.0: "low", 7.0: "medium", INF: "high"}
        assert class_levels(margins, FeedbackConfig()) == tuple(names[margin] for margin in margins)


def test_of_equal_margins_the_first_class_counts_as_the_weakest() -> None:
    levels = class_levels([INF, 1.0, INF, 1.0, INF], FeedbackConfig())
    assert levels == ("low", "low", "medium", "low", "high")


def test_shares_mean_what_they_say_whatever_floats_make_of_them() -> None:
    for classes, hundredths in itertools.product((2, 3, 7, 10, 25, 50, 100), range(101)):
        share = hundredths / 100
        up, down = -(-hundredths * classes // 100), hundredths * classes // 100
        for config, low, high in (
            (FeedbackConfig(low_share=share, high_share=0), up, 0),
            (FeedbackConfig(low_share=0, high_share=share), 0, down),
            (FeedbackConfig(low_share=1 - share, high_share=share), classes - down, down),
        ):
            levels = class_levels([1.0] * classes, config)
            assert (levels.count("low"), levels.count("high")) == (low, high)
