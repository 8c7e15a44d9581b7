"""What is made small agrees with how answers are judged, and has a gradient where that has none."""

import pytest
import torch
from torch import Tensor

from muquant.compression.answers.distortion import distortion
from muquant.compression.tuning.loss import hidden_loss, output_loss

GENERATOR = torch.Generator().manual_seed(0)
LOGITS = torch.randn(6, 9, generator=GENERATOR)
BOXES = torch.cat((100 * torch.rand(2, 4, 30, generator=GENERATOR), torch.rand(2, 3, 30) * 0.1), 1)
OUTPUTS = {
    "logits": LOGITS,
    "probabilities": LOGITS.softmax(1),
    "sigmoids": LOGITS.sigmoid(),
    "states": torch.randn(2, 5, 7, generator=GENERATOR),
    "boxes": BOXES,
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_small_error_counts_as_in_the_judgement(name: str) -> None:
    exact = OUTPUTS[name]
    found = exact * (1 + 0.02 * torch.randn(exact.shape, generator=torch.Generator().manual_seed(1)))
    judged = distortion(name, exact, found)
    assert judged
    assert float(output_loss(name, exact, found)) == pytest.approx(judged, rel=0.05)


@pytest.mark.parametrize("name", OUTPUTS)
def test_a_large_error_has_a_gradient(name: str) -> None:
    exact = OUTPUTS[name]
    found = (exact.roll(1, 0) * 0.9).requires_grad_(True)
    output_loss(name, exact, found).backward()  # type: ignore[no-untyped-call]
    assert found.grad is not None
    assert bool(found.grad.isfinite().all())
    assert found.grad.any()


def test_nothing_lost_is_no_loss() -> None:
    for name, exact in OUTPUTS.items():
        assert float(output_loss(name, exact, exact)) == 0
        assert float(hidden_loss(exact, exact)) == 0


def test_hidden_states_count_by_their_own_power() -> None:
    exact = torch.tensor([[3.0, 4.0]])
    assert float(hidden_loss(exact, exact + torch.tensor([[1.0, 0.0]]))) == pytest.approx(1 / 25)


@pytest.mark.parametrize("loss", [lambda *each: output_loss("states", *each), hidden_loss])
def test_what_is_not_finite_or_of_another_shape_tells_nothing(loss: object) -> None:
    assert callable(loss)
    exact = torch.tensor([[1.0, float("-inf"), 2.0]])
    assert float(loss(exact, torch.tensor([[1.0, 5.0, 2.0]]))) == 0
    other: Tensor = loss(torch.ones(3, 2), torch.ones(2, 2, requires_grad=True))
    assert other.item() == 0
    other.backward()  # type: ignore[no-untyped-call]
