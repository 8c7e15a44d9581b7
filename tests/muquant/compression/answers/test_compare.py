"""Figures of a check against numpy, and what is not lossless."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

from muquant import AnswersCheck, OutputCheck
from muquant.compression.answers import compare
from muquant.compression.answers.compare import FloatAnswers

NAN, INF = math.nan, math.inf


def check(exact: list[Any], found: list[Any], name: str = "y") -> AnswersCheck:
    """The check of one output of runs that answer `exact`, then `found`."""

    def outputs(values: Any) -> list[tuple[str, Tensor]]:
        return [(name, values if isinstance(values, Tensor) else torch.tensor(values))]

    answered = ((place, outputs(values), 1) for place, values in enumerate(exact))
    kept = FloatAnswers.of(answered, lambda place: outputs(exact[place]), "held-out samples")
    return kept.beside(lambda place: outputs(found[place]))


def one(exact: Any, found: Any, name: str = "y") -> OutputCheck:
    (output,) = check([exact], [found], name).outputs
    return output


@given(st.integers(0, 2**32 - 1), st.integers(1, 4), st.integers(2, 5))
def test_figures_over_all_runs_are_those_of_numpy(seed: int, runs: int, classes: int) -> None:
    random = np.random.default_rng(seed)
    exact, noise = random.standard_normal((runs, 6, classes)), random.standard_normal((runs, 6, classes))
    found = exact + noise / 2
    result = check(list(map(torch.from_numpy, exact)), list(map(torch.from_numpy, found)))
    assert result.count == runs
    ratio = 10 * np.log10((exact**2).sum() / ((found - exact) ** 2).sum())
    assert result.sqnr == pytest.approx(ratio)
    assert result.agreement == (exact.argmax(-1) == found.argmax(-1)).mean()


@pytest.mark.parametrize(
    ("exact", "found", "sqnr"),
    [
        ([1.0, 2.0], [1.0, 2.0], INF),
        ([0.0, 0.0], [0.0, 0.0], INF),
        ([0.0, 0.0], [0.0, 1e-9], -INF),  # zeros were right
        ([1.0, 2.0], [1.0, NAN], -INF),
        ([1.0, 2.0], [1.0, INF], -INF),
        ([1.0, INF], [1.0, INF], INF),
        ([1.0, INF], [1.0, -INF], -INF),
        ([1.0, INF], [1.0, 5.0], -INF),
        ([10.0, -INF], [11.0, -INF], 20.0),
        ([10.0, NAN], [11.0, NAN], 20.0),
        ([1e200, 1e200], [1e200, 0.0], -INF),  # squares that no float holds say nothing good
    ],
)
def test_what_is_lossless(exact: list[float], found: list[float], sqnr: float) -> None:
    double = torch.float64
    result = one(torch.tensor(exact, dtype=double), torch.tensor(found, dtype=double))
    assert result.sqnr == pytest.approx(sqnr)


@pytest.mark.parametrize("float16", [torch.float16, torch.bfloat16])
def test_halves_are_compared_in_doubles(float16: torch.dtype) -> None:
    exact = torch.full((1000,), 200.0, dtype=float16)
    assert one(exact, exact * 2).sqnr == pytest.approx(0.0)


@pytest.mark.parametrize(
    ("name", "exact", "found", "agreement"),
    [
        ("y", [[1.0, 2.0], [5.0, 2.0]], [[1.0, 0.0], [5.0, 2.0]], 0.5),
        ("embeddings", [[1.0, 2.0]], [[1.0, 0.0]], None),
        ("stateN", [[1.0, 2.0]], [[1.0, 0.0]], None),
        ("y", [[[1.0, 2.0]]], [[[1.0, 0.0]]], None),  # [N, places, channels] may be anything
        ("logits", [[[1.0, 2.0]]], [[[1.0, 0.0]]], 0.0),
        ("y", [[[0.4, 0.6]]], [[[0.6, 0.4]]], 0.0),  # but probabilities are answers
        ("y", [[[0.4, 0.5]]], [[[0.6, 0.4]]], None),
        ("y", [[0.4], [0.6]], [[0.45], [0.1]], 0.5),
        ("y", [0.4, 0.6], [0.45, 7.0], 1.0),
        ("y", [[1.4], [0.6]], [[0.45], [0.1]], None),
        ("y", 0.7, 0.2, 0.0),
        ("y", [1, 2, 3, 4], [1, 2, 0, 4], 0.75),
        ("y", [True, False], [True, True], 0.5),
    ],
)
def test_what_counts_as_an_answer(name: str, exact: Any, found: Any, agreement: float | None) -> None:
    output = one(exact, found, name)
    assert output.agreement == agreement
    assert (output.sqnr is None) == (not torch.tensor(exact).is_floating_point())


def test_pictures_have_their_classes_on_axis_1() -> None:
    exact = torch.softmax(torch.randn(2, 3, 4, 5), 1)
    found = exact.clone()
    found[0, :, 0, 0] = exact[0, :, 0, 0].neg()
    assert one(exact, found).agreement == 39 / 40


def test_complex_numbers_are_their_parts() -> None:
    assert one(torch.tensor([3 + 4j]), torch.tensor([3 + 3.5j])).sqnr == pytest.approx(20.0)


def test_other_shapes_are_told_and_not_compared() -> None:
    result = check([[1.0], [2.0, 3.0]], [[1.0, 1.0], [2.0, 3.0]])
    assert (result.outputs[0].other_shapes, result.sqnr) == (1, INF)
    nothing = check([[1.0]], [[1.0, 1.0]])
    assert not nothing.passes(-INF, 0)
    assert nothing.not_checked == (
        "no output can be compared on held-out samples: its shape depends on what the model answers"
    )


@pytest.mark.parametrize("exact", [[NAN, NAN], []])
def test_an_output_that_tells_nothing(exact: list[float]) -> None:
    result = check([exact], [exact])
    assert not result.passes()
    assert result.words == (
        "Answers not checked: no output can be compared on held-out samples: the float model answers NaN or "
        "nothing"
    )


def test_random_numbers_are_noticed() -> None:
    def run(_: int) -> list[tuple[str, Tensor]]:
        return [("y", torch.randn(5))]

    kept = FloatAnswers.of(((place, run(place), 1) for place in range(3)), run, "the example")
    assert kept.not_checked == "the model answers the same inputs differently each time"
    assert kept.beside(run) == AnswersCheck(not_checked=kept.not_checked)


def test_a_model_without_tensors() -> None:
    assert FloatAnswers.of([(0, [], 1)], lambda _: [], "the example").not_checked == (
        "the model returns no tensors"
    )


def test_time_and_memory_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def kept(**options: Any) -> int:
        def run(place: int) -> list[tuple[str, Tensor]]:
            return [("y", torch.full((256,), float(place)))]

        return FloatAnswers.of(
            ((place, run(place), 1) for place in range(9)), run, "the example", **options
        ).count

    assert kept() == 9
    monkeypatch.setattr(compare, "MEMORY", 3000)
    assert kept() == 3
    assert kept(seconds=-1.0) == 1


def test_weak_units_beside_strong_ones_are_seen() -> None:
    random = np.random.default_rng(0)
    boxes, scores = 300 * random.standard_normal((2, 4, 50)), 0.01 * random.standard_normal((2, 18, 50))
    exact = [torch.from_numpy(np.concatenate([boxes, scores], 1))] * 2
    lost = [torch.from_numpy(np.concatenate([boxes * 1.01, 0 * scores], 1))] * 2
    (output,) = check(exact, lost).outputs
    expected = (4 * 0.01**2 + 18) / 22
    assert output.sqnr == pytest.approx(-10 * math.log10(expected))
    (output,) = check(exact, [each * 1.1 for each in exact]).outputs
    assert output.sqnr == pytest.approx(20)
    (scored,) = check(exact, lost, "scores").outputs  # classes are judged by what they answer
    assert scored.sqnr == pytest.approx(40, abs=0.1)


def test_units_whose_number_changes_have_one_figure() -> None:
    random = np.random.default_rng(0)
    strong = [1, 100, 1, 1]
    exact = [torch.from_numpy(random.standard_normal((2, 3, size)) * strong[:size]) for size in (4, 3)]
    (output,) = check(exact, [each * 1.1 for each in exact], "hidden").outputs
    assert output.sqnr == pytest.approx(20)
