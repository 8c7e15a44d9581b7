import itertools

import pytest
import torch

from muquant.feedback import FeedbackConfig, class_levels

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


def test_shares_that_fill_the_whole_leave_no_gap_whatever_floats_make_of_them() -> None:
    for classes, low in itertools.product(range(2, 40), range(101)):
        config = FeedbackConfig(low_share=low / 100, high_share=(100 - low) / 100)
        levels = class_levels([1.0] * classes, config)
        assert levels.count("low") == -(-low * classes // 100)
        assert levels.count("high") == classes - levels.count("low")
