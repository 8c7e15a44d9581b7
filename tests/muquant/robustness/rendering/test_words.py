import math
from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from muquant.attacks import parse_epsilon
from muquant.robustness.rendering import words
from muquant.robustness.report import Report


@pytest.mark.parametrize("count", [1, 7, 10, 200, 999, 1000, 1001, 10_000])
def test_a_percentage_tells_every_number_of_images_from_every_other(count: int) -> None:
    texts = [words.percent(kept / count, count) for kept in range(count + 1)]
    assert len(set(texts)) == count + 1
    assert (texts[0], texts[-1]) == (f"{0:.{len(texts[0]) - 3}f}%", f"{100:.{len(texts[0]) - 3}f}%")
    for kept, text in enumerate(texts):
        assert round(float(text.removesuffix("%")) / 100 * count) == kept


def test_percentages_and_intervals_in_words() -> None:
    assert words.percent(0.9123, 1000) == "91.2%"
    assert words.percent(0.9123, 10_000) == "91.23%"
    assert words.percent(None, 1000) == "-"
    assert words.interval((0.891, 0.9284), 1000) == "89.1% to 92.8%"
    assert words.interval(None, 1000) == "-"


@pytest.mark.parametrize(
    ("value", "text"),
    {
        0: "0",
        0.3: "0.3",
        0.1 + 0.2: "0.3",
        0.031: "0.031",
        8 / 255: "8/255",
        2.0: "2",
        12.5: "12.5",
        1 / 3: "85/255",
        0.12345678: "0.1235",
        1e-5: "1e-05",
    }.items(),
)
def test_a_radius_in_words(value: float, text: str) -> None:
    assert words.radius(value) == text


@given(st.floats(1e-6, 100))
def test_a_radius_can_be_read_back(value: float) -> None:
    assert math.isclose(parse_epsilon(words.radius(value)), value, rel_tol=5.1e-4)


@pytest.mark.parametrize(
    ("seconds", "text"),
    {
        0: "0 s",
        0.4375: "0.44 s",
        9.94: "9.9 s",
        9.96: "10 s",
        59.4: "59 s",
        59.6: "1 min 0 s",
        200: "3 min 20 s",
        3599.7: "1 h 0 min",
        3900: "1 h 5 min",
    }.items(),
)
def test_a_duration_in_words(seconds: float, text: str) -> None:
    assert words.duration(seconds) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.014, "0.014"), (999.94, "999.9"), (1234.5, "1,234"), (1e-05, "1e-05"), (-3, "-3")]
)
def test_a_number_in_words(value: float, text: str) -> None:
    assert words.number(value) == text


def test_a_ball_and_a_count_in_words() -> None:
    assert words.ball("linf", 8 / 255) == "L∞ ≤ 8/255"
    assert words.ball("l2", None) == "L2, any distance"
    assert words.plural(1, "image") == "1 image"
    assert words.plural(1000, "image") == "1,000 images"


def test_parameters_are_listed_with_those_of_an_attack_inside() -> None:
    inner = {"name": "mim", "epsilon": 8 / 255, "targeted": False}
    text = words.parameters({"name": "transfer", "method": inner, "surrogate": "9f0e"})
    assert text == "method mim (epsilon 8/255, targeted false), surrogate 9f0e"


def test_every_verdict_has_its_reason(report: Report) -> None:
    assert [words.reason(model, report) for model in report.models] == [
        "only advisory: black-box",
        "checked as a PyTorch model",
        "no check fired",
        "checked as a PyTorch model",
        "fired: scale",
        "white-box attacks were not available",
    ]


def test_an_aim_in_words(report: Report) -> None:
    assert (words.aim(report), words.aimed(report)) == ("", "")
    aims = {"3": "class 3", "random": "a random class", "least-likely": "the least likely class"}
    for rule, text in aims.items():
        aimed = replace(report, target_class=rule)
        assert words.aim(aimed) == text
        assert words.aimed(aimed).startswith(f"Attacks aimed at {text}: ")
        unassessed = replace(report.models[0], verdict="not assessed")
        assert words.reason(unassessed, aimed) == "attacks aimed at classes"


def test_what_abstains_is_told(report: Report) -> None:
    assert words.abstained(report) == []
    timid = replace(report, models=(report.models[0], replace(report.models[2], abstained=0.071)))
    assert words.abstained(timid) == ["robust 3 bits, PyTorch, abstains on 7.1% of the clean images."]


def test_disqualifying_flags_come_first(report: Report) -> None:
    (advisory,), (disqualifying,) = (report.models[place].flags for place in (0, 4))
    flags = [advisory, disqualifying, advisory]
    assert words.by_weight(flags) == [disqualifying, advisory, advisory]
    assert [words.disqualified(model) for model in report.models] == [*[False] * 4, True, False]


def test_a_model_without_checks_says_so(report: Report) -> None:
    bare = [replace(report.models[place], checks=()) for place in (0, 1, 5)]
    expected = ["no check applied", "checked as a PyTorch model", "no check was run"]
    assert [words.unchecked(model) for model in bare] == expected


def test_what_came_after_the_standard_version_is_told_in_points(report: Report) -> None:
    plain, (first, *_) = report.models[2], report.models
    after = ("apgd-ce", "apgd-t", "fab-t", "square")
    assert words.effort(first, 1000) is None
    assert (
        words.effort(plain, 1000) == "robust 3 bits, PyTorch: 91.1%, lowered by everything else 0.2 points."
    )
    more = {
        f"again-{kept}": replace(first.attacks["square"], accuracy=kept / 1000, after=after)
        for kept in (911, 910)
    }
    tried = replace(plain, attacks={**plain.attacks, **more})
    assert words.effort(tried, 1000) == (
        "robust 3 bits, PyTorch: 91.1%, lowered by again-911 0.0 points, again-910 0.1 points, everything "
        "else 0.1 points."
    )


def test_what_is_known_of_a_model(report: Report) -> None:
    assert [words.make(each) for each in report.models[::2]] == [
        "float, 13.10 MB",
        "3 bits, 1.25 MB",
        "3 bits",
    ]
    assert words.make(report.models[-1]) == "4.40 MB"
    assert words.make(replace(report.models[0], bits=3.125, nbytes=None)) == "3.12 bits"
