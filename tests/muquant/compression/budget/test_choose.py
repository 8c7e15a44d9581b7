"""The plan that keeps within the limits, with made-up curves and answers."""

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, strategies as st

from muquant import InputError, MuLawSpec, Plan
from muquant.compression.budget import Drop, WidthCurve, WidthPoint
from muquant.compression.budget.answers import answers, count_changed
from muquant.compression.budget.choose import choose
from muquant.compression.budget.front import Front
from muquant.compression.budget.limits import Limits
from muquant.compression.options import CompressionOptions

CURVES = [
    WidthCurve(
        name,
        "answers",
        None,
        tuple(WidthPoint(bits, size * bits, power * 4.0**-bits) for bits in range(2, 9)),
    )
    for name, size, power in (("a", 100, 1.0), ("b", 1000, 1.0), ("c", 10, 100.0))
]


def by_bytes(most: int, tried: list[int]) -> Callable[[Plan], Drop]:
    """A trial in which 10 of 1,000 answers change with less than `most` bytes, and 5 with more."""

    def trial(plan: Plan) -> Drop:
        tried.append(plan.nbytes)
        return Drop(10 if plan.nbytes < most else 5, 1000)

    return trial


def test_within_the_bytes_the_noise_is_least() -> None:
    plan = choose(CURVES, Limits(4000), "all")
    assert plan.nbytes <= 4000
    assert plan.bits == {"a": 8, "b": 3, "c": 8}  # what costs little is wide
    assert plan.drop is None
    assert choose(CURVES, Limits(10**9), "all").bits == {"a": 8, "b": 8, "c": 8}


LADDER = Front.of(CURVES).hull().nbytes.tolist()


@pytest.mark.parametrize("place", range(len(LADDER)))
def test_the_smallest_plan_that_keeps_the_answers_is_found_by_bisection(place: int) -> None:
    tried: list[int] = []
    steps: list[tuple[str, int, int]] = []
    trial = by_bytes(LADDER[place], tried)
    plan = choose(CURVES, Limits(max_drop=0.5), "all", trial, lambda *step: steps.append(step))
    assert plan.nbytes == LADDER[place]
    assert plan.drop == Drop(5, 1000)
    assert tried[0] == LADDER[-1] == 8880
    assert len(tried) == len(set(tried)) == len(steps) <= 6  # of 19 plans on the hull
    assert steps == [(f"trying {nbytes:,} bytes", i, 6) for i, nbytes in enumerate(tried)]


def test_both_limits_hold_or_it_is_said() -> None:
    tried: list[int] = []
    plan = choose(CURVES, Limits(6000, 0.5), "all", by_bytes(5000, tried))
    assert 5000 <= plan.nbytes <= max(tried) <= 6000
    with pytest.raises(InputError, match=r"is 0.5 points, .* within max_bytes 4,000, .* 10 of 1,000"):
        choose(CURVES, Limits(4000, 0.5), "all", by_bytes(5000, []))


def test_limits_that_nothing_keeps_are_told_with_what_there_is() -> None:
    with pytest.raises(InputError, match=r"max_bytes is 100; .* take 2,220 bytes, .* 8,880; give at least"):
        choose(CURVES, Limits(100), "all")
    message = r"max_drop is 0 points, but with the widest plan, of 8,880 bytes, 5 of 1,000 .* \(0.5 points"
    with pytest.raises(InputError, match=message):
        choose(CURVES, Limits(max_drop=0), "all", by_bytes(0, []))


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ((), "needs a limit, found none"),
        ((-1,), "max_bytes is -1"),
        ((1.5,), "max_bytes is 1.5"),
        ((True,), "max_bytes is True"),
        ((None, -0.1), "max_drop is -0.1; expected percentage points, 0 to 100"),
        ((None, 101), "max_drop is 101"),
        ((None, float("nan")), "max_drop is nan"),
        ((None, "1"), "max_drop is '1'"),
    ],
)
def test_limits_out_of_range(limits: tuple[object, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Limits(*limits)  # type: ignore[arg-type]


def test_what_does_not_go_together() -> None:
    limits, samples = Limits(100, 1), torch.zeros(8, 1)
    with pytest.raises(InputError, match='layers "auto" chooses widths'):
        limits.check(CompressionOptions(layers="auto", calibration=samples))
    with pytest.raises(InputError, match='domain "mapped"'):
        limits.check(CompressionOptions(spec=MuLawSpec(3, 255.0, "mapped"), calibration=samples))
    with pytest.raises(InputError, match=r"max_drop is measured .* give a calibration"):
        limits.check(CompressionOptions())
    with pytest.raises(InputError, match=r"override 'a' is MuLawSpec.* expected a width"):
        limits.check(CompressionOptions(overrides={"a": MuLawSpec()}, calibration=samples))
    Limits(100).check(CompressionOptions(overrides={"a": 8}))


def test_answers_are_classes() -> None:
    logits = torch.tensor([[0.0, 2.0, 1.0], [3.0, 0.0, 1.0]])
    assert answers(logits).said.tolist() == [1, 0]
    assert answers(logits[None]).said.tolist() == [[1, 0]]
    assert answers(logits.T[None, :, :, None]).said.tolist() == [[[1], [0]]]  # axis 1 of pictures
    assert answers(logits.half()).said.tolist() == [1, 0]
    assert answers(torch.tensor([4, 2])).said.tolist() == [4, 2]
    for shape in ((3,), (3, 1), (2, 1, 4, 4)):
        with pytest.raises(InputError, match="max_drop compares which class"):
            answers(torch.zeros(shape))


def test_changed_answers_are_counted_over_batches() -> None:
    exact = [answers(torch.tensor(labels)) for labels in ([0, 1, 2], [3])]
    found = [answers(torch.tensor(labels)) for labels in ([0, 2, 2], [3])]
    assert count_changed(exact, found) == Drop(1, 4)


@given(st.integers(0, 2**32 - 1), st.floats(0.2, 2))
def test_what_is_to_be_expected_is_what_more_samples_would_show(seed: int, noise: float) -> None:
    random = torch.Generator().manual_seed(seed)
    exact, errors = (torch.randn(4000, 5, generator=random) for _ in range(2))
    many = count_changed([answers(exact)], [answers(exact + noise * errors)])
    few = count_changed([answers(exact[:400])], [answers((exact + noise * errors)[:400])])
    assert few.expected is not None
    assert many.expected is not None
    share = many.changed / many.answers
    assert few.expected == pytest.approx(share, abs=0.35 * share + 0.02)
    assert few.expected == pytest.approx(many.expected, abs=5 * few.deviation + 0.02)
    assert few.deviation < 0.02
    probable = count_changed([answers(exact.softmax(1))], [answers((exact + noise * errors).softmax(1))])
    assert probable.expected == pytest.approx(many.expected, rel=1e-3)


def test_few_answers_can_be_expected_to_change_a_little() -> None:
    exact = torch.tensor([[3.0, 0.0], [0.0, 2.0], [4.0, 0.0], [0.0, 5.0]])
    drop = count_changed([answers(exact)], [answers(exact + torch.tensor([[0.0, 1.0]]))])
    assert drop.changed == 0
    expected = sum(0.5 * math.erfc(margin / 2**0.5) for margin in (3, 2, 4, 5)) / 4
    assert drop.expected == pytest.approx(expected)
    assert drop.points == pytest.approx(100 * expected)
    same = count_changed([answers(exact)], [answers(exact)])
    assert (same.changed, same.expected) == (0, 0.0)
