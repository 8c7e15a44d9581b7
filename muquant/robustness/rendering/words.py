"""Figures in words: how the page and the Markdown write percentages, radii, times, verdicts."""

import json
import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from muquant.base.text import byte_size
from muquant.robustness.report import CheckReport, ModelReport, Report, Verdict, all_proven
from muquant.robustness.suites import STANDARD_VERSION

RUNTIMES = {"torch": "PyTorch", "onnx": "onnxruntime"}
NORMS = {"linf": "L∞", "l2": "L2", "l1": "L1"}
SYMBOLS: dict[Verdict, str] = {"established": "✓", "not established": "✕", "not assessed": "?"}
DISQUALIFYING = "disqualifying"
STANDARD = (
    "AA standard is what AutoAttack's standard version leaves: APGD-CE, APGD-T, FAB-T and Square, each on "
    "the survivors of the one before. What came after it still lowered that:"
)

CERTIFIED = (
    "Certified is the share of images that no attack can turn, whatever it does: bounds through the weights "
    "prove it, for any order in which float32 adds, but not for kernels that round activations. A bound from "
    "below, where the worst case is one from above."
)

ABSTAINS = (
    "A model that abstains is not right about a clean image by that, and not fooled by an adversarial one."
)

CORRUPTIONS = (
    "Corruptions are kinds of ImageNet-C and CIFAR-10-C, at severities 1 to 5: the mean over these, and in "
    "brackets the percentage at each. They look for no worst case, and are no part of it. They are computed "
    "for these images with ImageNet-C's parameters, so that figures are not those on the published files."
)

_AIMS = {"random": "a random class", "least-likely": "the least likely class", "next": "the next class"}
_PIXEL_LEVELS = 255


def percent(share: float | None, count: int) -> str:
    """A share of `count` images, as exact as one image: 91.2% of 1,000, 91.24% of 10,000."""
    return "-" if share is None else f"{_hundredths(share, count)}%"


def points(share: float, count: int) -> str:
    """A difference of shares of `count` images in percentage points, as exact as one image."""
    return f"{_hundredths(share, count)} points"


def _hundredths(share: float, count: int) -> str:
    decimals = max(1, len(str(count - 1)) - 2)
    return f"{100 * share:.{decimals}f}"


def interval(bounds: tuple[float, float] | None, count: int) -> str:
    """Both ends of an interval of shares, such as "89.1% to 92.8%"."""
    return "-" if bounds is None else " to ".join(percent(end, count) for end in bounds)


def radius(value: float) -> str:
    """A short decimal fraction such as 0.3, or a number of the 255 levels of a pixel such as 8/255."""
    levels = value * _PIXEL_LEVELS
    if math.isclose(value, round(value, 3), rel_tol=1e-9):
        return f"{value:g}"
    if math.isclose(levels, round(levels), rel_tol=1e-6):
        return f"{round(levels)}/{_PIXEL_LEVELS}"
    return f"{value:.4g}"


def ball(norm: str, epsilon: float | None) -> str:
    """Where adversarial images may lie, such as "L∞ ≤ 0.3"."""
    name = NORMS.get(norm, norm)
    return f"{name}, any distance" if epsilon is None else f"{name} ≤ {radius(epsilon)}"


def aim(report: Report) -> str:
    """What attacks aimed at, such as "class 3" or "the least likely class"; "" where at nothing."""
    rule = report.target_class
    return "" if rule is None else _AIMS.get(rule, f"class {rule}")


def aimed(report: Report) -> str:
    """What figures mean where attacks aimed at a class; "" where they did not."""
    if report.target_class is None:
        return ""
    return (
        f"Attacks aimed at {aim(report)}: an image is fooled only where the model takes it for that class. "
        "Such a figure is higher than one of attacks that may end in any class, and is not to be set beside "
        "one: no masking check looks at it, and it is no AA standard."
    )


def abstained(report: Report) -> list[str]:
    """Of how many clean images each model abstains that can."""
    count = report.data["count"]
    return [
        f"{title(model)}, abstains on {percent(model.abstained, count)} of the clean images."
        for model in report.models
        if model.abstained is not None
    ]


def corrupted(report: Report) -> list[str]:
    """The mean accuracy of each model under corruptions, and what computed them."""
    return [
        f"{title(model)}: {found.mean:.1%} on average over {plural(len(found.accuracy), 'kind')} and 5 "
        f"severities, 95% interval {found.interval[0]:.1%} to {found.interval[1]:.1%}, "
        f"{plural(found.count, 'image')}, by {found.library}."
        for model in report.models
        if (found := model.corruptions) is not None
    ]


def number(value: float) -> str:
    """Four significant digits, or a whole number where it is larger."""
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e12 else f"{value:.4g}"


def distance(value: float | None) -> str:
    """Three significant digits."""
    return "none" if value is None else f"{value:.3g}"


def duration(seconds: float) -> str:
    """Wall time, such as "0.42 s", "48 s", "3 min 20 s", "1 h 5 min"."""
    if seconds < 59.5:
        return f"{seconds:.2g} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def plural(count: int, noun: str) -> str:
    """`count` and the noun, such as "1 image" or "1,000 images"."""
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def title(model: ModelReport) -> str:
    """A model and its runtime on one line."""
    return f"{model.name}, {RUNTIMES[model.runtime]}"


def make(model: ModelReport) -> str:
    """What is known of the deployed model: bits of a weight, size of the file."""
    bits = "" if model.bits is None else "float" if model.bits == 32 else f"{model.bits:.3g} bits"
    file = "" if model.nbytes is None else byte_size(model.nbytes)
    return ", ".join(filter(None, (bits, file)))


def reason(model: ModelReport, report: Report) -> str:
    """Why the verdict on a model of a report is what it is."""
    if all_proven(model.certified, model.worst_case):
        return "proven of every image that is left"
    if model.verdict == "not assessed":
        return "attacks aimed at classes" if aim(report) else "white-box attacks were not available"
    if not model.checks:
        return unchecked(model)
    if model.verdict == "not established":
        return f"fired: {', '.join(flag.check for flag in model.flags if flag.kind == DISQUALIFYING)}"
    return (
        f"only advisory: {', '.join(flag.check for flag in model.flags)}" if model.flags else "no check fired"
    )


def unchecked(model: ModelReport) -> str:
    """Why a model has no checks."""
    if model.verdict == "not assessed":
        return "no check was run"
    return "no check applied" if model.runtime == "torch" else "checked as a PyTorch model"


def has_certified(report: Report) -> bool:
    """Whether the report states what is proven."""
    return any(model.certified is not None for model in report.models)


def has_standard(report: Report) -> bool:
    """Whether the report states what AutoAttack's standard version leaves."""
    return any(model.aa_standard is not None for model in report.models)


def effort(model: ModelReport, count: int) -> str | None:
    """By how much what came after AutoAttack's standard version lowered the figure of `count` images."""
    standard, worst = model.aa_standard, model.worst_case
    if standard is None or worst is None:
        return None
    later = {
        name: attack.accuracy
        for name, attack in model.attacks.items()
        if set(STANDARD_VERSION) <= set(attack.after) and attack.accuracy is not None
    }
    left = [standard, *later.values()]
    lowered = [
        f"{name} {points(before - after, count)}"
        for name, (before, after) in zip(later, pairwise(left), strict=True)
    ]
    rest = f"everything else {points(left[-1] - worst, count)}"
    return f"{title(model)}: {percent(standard, count)}, lowered by {', '.join([*lowered, rest])}."


def efforts(report: Report) -> list[str]:
    """What `effort` says of the models of a report, of which it says something."""
    lines = (effort(model, report.data["count"]) for model in report.models)
    return [line for line in lines if line is not None]


def disqualified(model: ModelReport) -> bool:
    """Whether a disqualifying check fired."""
    return any(flag.kind == DISQUALIFYING for flag in model.flags)


def by_weight(flags: Sequence[CheckReport]) -> list[CheckReport]:
    """Disqualifying ones first, otherwise in their order."""
    return sorted(flags, key=lambda flag: flag.kind != DISQUALIFYING)


def parameters(values: Mapping[str, Any]) -> str:
    """An attack's parameters on one line; those of an attack inside it in brackets."""
    return ", ".join(f"{name} {_value(value)}" for name, value in values.items() if name != "name")


def _value(value: Any) -> str:
    if isinstance(value, Mapping):
        return f"{value.get('name', '')} ({parameters(value)})".strip()
    if isinstance(value, float):
        return radius(value)
    return value if isinstance(value, str) else json.dumps(value)
