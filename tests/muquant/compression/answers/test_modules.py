"""`muquant.compress` says how a module answers before and after."""

import warnings
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import muquant as mq
from muquant.models import Architecture, build


def classifier() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 10))


def compressed(model: nn.Module, spec: mq.MuLawSpec | None = None, **options: Any) -> mq.CompressedModel:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return mq.compress(model, spec, **options)


def checked(*arguments: Any, **options: Any) -> mq.AnswersCheck:
    answers = compressed(*arguments, **options).answers
    assert answers is not None
    return answers


def figures(exact: Tensor, found: Tensor) -> tuple[float, float]:
    before, after = exact.detach().double().numpy(), found.detach().double().numpy()
    ratio = 10 * np.log10((before**2).sum() / ((after - before) ** 2).sum())
    return float(ratio), float((before.argmax(-1) == after.argmax(-1)).mean())


def test_on_the_example() -> None:
    model, x = classifier(), torch.randn(50, 20)
    result = compressed(model, example=x)
    answers = result.answers
    assert answers is not None
    assert (answers.inputs, answers.count) == ("the example", 50)
    assert (answers.sqnr, answers.agreement) == pytest.approx(figures(model(x), result.module(x)))


def test_on_the_held_out_samples() -> None:
    model, x = classifier(), torch.randn(80, 20)
    result = compressed(model, calibration=x, example=torch.randn(3, 20))
    answers, held_out = result.answers, x[3::4]
    assert answers is not None
    assert (answers.inputs, answers.count) == ("held-out samples", 20)
    expected = figures(model(held_out), result.module(held_out))
    assert (answers.sqnr, answers.agreement) == pytest.approx(expected)


def test_an_example_of_zeros_is_only_a_shape() -> None:
    answers = checked(nn.Linear(20, 10, bias=False), example=torch.zeros(1, 20))
    assert (answers.inputs, answers.count) == ("synthetic inputs", 16)
    assert answers.sqnr is not None
    assert 5 < answers.sqnr < 40


def test_models_of_ours_know_their_input() -> None:
    model = build(Architecture("cnn4-small", (1, 8, 8), 10, (0.5,), (0.5,)))
    assert checked(model).inputs == "synthetic inputs"


def test_nothing_to_run_it_on() -> None:
    answers = checked(classifier())
    assert answers.words == (
        "Answers not checked: nothing is known to run the model on; give an example or samples"
    )
    wrong = checked(classifier(), example=torch.randn(3, 21))
    assert wrong.not_checked.startswith("Sequential does not run on the example: ")
    assert compressed(classifier(), example=torch.randn(3, 20), check=False).answers is None


def test_a_warning_where_answers_are_no_longer_alike() -> None:
    model, x = nn.Sequential(*[nn.Linear(32, 32) for _ in range(6)]), torch.randn(64, 32)
    with pytest.warns(
        mq.AnswersWarning, match=r"no longer answers like yours.*calibration=.*MuLawSpec"
    ) as seen:
        mq.compress(model, mq.MuLawSpec(2), example=x)
    assert seen[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert mq.compress(model, mq.MuLawSpec(8), example=x).answers.passes()  # type: ignore[union-attr]


class Odd(nn.Module):
    """Counts its calls, draws random numbers, changes its input, and returns fields."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> dict[str, Any]:
        self.calls.add_(1)
        y = self.layer(x) + torch.rand(3)
        x.zero_()
        return {"logits": y, "parts": (y.argmax(-1), y.double()), "none": None}


def test_what_a_model_does_to_itself_and_to_its_input() -> None:
    model, x = Odd(), torch.randn(6, 4)
    before = torch.random.get_rng_state()
    result = compressed(model, mq.MuLawSpec(8), example=x)
    assert torch.equal(before, torch.random.get_rng_state())
    assert result.answers is not None
    assert [each.name for each in result.answers.outputs] == ["logits", "parts.0", "parts.1"]
    assert result.answers.sqnr is not None
    assert result.answers.sqnr > 30
    assert x.abs().min() > 0
    assert model.calls == result.module.calls == 0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_floating_types(dtype: torch.dtype) -> None:
    answers = checked(classifier().to(dtype), mq.MuLawSpec(8), example=torch.randn(9, 20, dtype=dtype))
    assert answers.sqnr is not None
    assert answers.sqnr > 30


def test_what_was_trained_in_few_bits_loses_nothing() -> None:
    model = classifier()
    mq.prepare_qat(model)
    answers = checked(model, example=torch.randn(9, 20))
    assert answers.passes(60, 1.0)


TRAINED = torch.linspace(0, 40, 32).sin().reshape(4, 8)


class Fragile(nn.Linear):
    """Refuses weights that are not exact."""

    def forward(self, x: Tensor) -> Tensor:
        if not torch.equal(self.weight, TRAINED):
            raise RuntimeError("tampered with")
        return super().forward(x)


def test_a_compressed_model_that_does_not_run_is_an_error() -> None:
    model = Fragile(8, 4)
    model.weight.data = TRAINED.clone()
    with pytest.raises(
        mq.InputError, match=r"^the compressed Fragile does not run on the example, .*tampered"
    ):
        mq.compress(model, example=torch.randn(2, 8))
    assert mq.compress(model, example=torch.randn(2, 8), check=False).answers is None
