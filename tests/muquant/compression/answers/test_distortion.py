"""The figure that widths are chosen by, against numpy's."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from muquant.compression.answers.distortion import compared, distortion, residual
from muquant.compression.answers.units import balanced, powers, unit_axis


def normal(seed: int, *shape: int) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).standard_normal(shape))


@given(st.integers(0, 2**32 - 1), st.floats(0, 3))
def test_of_classes_it_is_the_error_of_their_probabilities_logarithms(seed: int, noise: float) -> None:
    exact = normal(seed, 6, 5) * 3
    found = exact + noise * normal(seed + 1, 6, 5)
    p, q = (each.softmax(1).numpy() for each in (exact, found))
    one, other = (np.log(np.maximum(each, 1e-4)) - np.log(1e-4) for each in (p, q))
    expected = ((one - other) ** 2).sum() / (one**2).sum()
    assert distortion("logits", exact, found) == pytest.approx(expected)
    pictures = (torch.from_numpy(each)[:, :, None, None] for each in (p, q))
    assert distortion("y", *pictures) == pytest.approx(expected)


def test_classes_that_nobody_expects_do_not_matter() -> None:
    exact, found = torch.tensor([[0.0, 9.0, -9.0, -15.0]]), torch.tensor([[0.0, 9.0, -15.0, -9.0]])
    assert distortion("logits", exact, found) == pytest.approx(0, abs=1e-6)


def test_it_does_not_ask_how_large_logits_are_altogether() -> None:
    exact = normal(0, 4, 7)
    assert distortion("logits", exact, exact + 5) == pytest.approx(0, abs=1e-12)
    assert (distortion("logits", exact, exact.flip(1)) or 0) > 0.01


def test_units_are_weighed_each_for_itself() -> None:
    boxes = torch.cat([300 * normal(1, 2, 4, 50), 0.01 * normal(2, 2, 18, 50)], 1)
    assert unit_axis(boxes) == 1
    assert unit_axis(boxes.mT) == 2
    assert unit_axis(normal(3, 2, 4, 50)) is None
    lost = boxes.clone()
    lost[:, 4:] = 0
    assert distortion("output0", boxes, lost) == pytest.approx(18 / 22)
    assert distortion("output0", boxes, boxes * 1.1) == pytest.approx(0.01)
    signal, noise = powers(boxes, 1), powers(boxes - lost, 1)
    assert balanced(signal, 100 * noise) == pytest.approx(18 / 22)  # no more than all of it is lost


def test_values_of_one_unit_share_a_figure() -> None:
    exact = normal(4, 3, 5, 6, 7)
    found = exact + 0.1 * normal(5, 3, 5, 6, 7)
    expected = float((found - exact).square().sum() / exact.square().sum())
    assert distortion("y", exact, found) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("exact", "found", "expected"),
    [
        (torch.tensor([1, 2, 3, 4]), torch.tensor([1, 2, 0, 0]), 0.5),
        (torch.tensor([True, False]), torch.tensor([True, True]), 0.5),
        (torch.zeros(3), torch.zeros(3), 0.0),
        (torch.zeros(3), torch.ones(3), 1.0),
        (torch.ones(3), torch.full((3,), torch.nan), 1.0),
        (torch.tensor([1.0, torch.nan]), torch.tensor([1.0, 5.0]), 0.0),
        (torch.tensor([[1j, 2.0]]), torch.tensor([[0j, 2.0]]), 0.2),
        (torch.zeros(2), torch.zeros(3), None),
        (torch.zeros(0, 2), torch.zeros(0, 2), None),
        (torch.full((2,), torch.inf), torch.zeros(2), None),
    ],
    ids=str,
)
def test_what_is_no_plain_number(exact: Tensor, found: Tensor, expected: float | None) -> None:
    figure = distortion("state", exact, found)
    assert figure == (None if expected is None else pytest.approx(expected))


def test_a_ruled_out_answer_is_worse_than_a_wrong_one() -> None:
    exact = torch.tensor([[0.0, 3.0, 1.0]])
    nothing = distortion("logits", exact, torch.full((1, 3), torch.nan))
    masked = distortion("logits", torch.tensor([[0.0, -torch.inf]]), torch.tensor([[0.0, -torch.inf]]))
    assert nothing == pytest.approx(1)
    assert masked == 0


def test_an_output_may_be_one_number() -> None:
    exact = torch.tensor(2.0)
    assert distortion("loss", exact, torch.tensor(2.5)) == pytest.approx(0.0625)
    assert float(residual("loss", exact, torch.tensor(2.5)).square()) == pytest.approx(0.0625)
    assert compared("loss", exact, torch.zeros(1))[0].numel() == 0
