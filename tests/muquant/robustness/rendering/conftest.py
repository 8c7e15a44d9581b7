"""A report such as a benchmark makes: several models, two runtimes, flags, rows that are not available."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from muquant.robustness.report import (
    AccuracyCurve,
    AttackReport,
    CheckReport,
    CorruptionReport,
    ModelReport,
    Picture,
    Report,
)
from muquant.robustness.statistics import wilson

COUNT, PART = 1000, 200
LINF = ("linf", 0.3)
L2 = ("l2", 2.0)


def attack(kept: int, threat: tuple[str, float | None], *, count: int = COUNT, **other: Any) -> AttackReport:
    """An attack that left `kept` of `count` images correctly classified."""
    fields: dict[str, Any] = {
        "source": "attack",
        "corruption": False,
        "parameters": {"name": "pgd", "epsilon": 0.3, "steps": 100, "restarts": 1},
        "count": count,
        "accuracy": kept / count,
        "interval": wilson(kept, count),
        "norm": threat[0],
        "epsilon": threat[1],
        "median_l2": 1.8203125 if kept < count / 2 else None,
        "median_linf": 0.3046875 if kept < count / 2 else None,
        "median_l1": 40.5 if kept < count / 2 else None,
        "queries": 100 * count + 57 * kept,
        "seconds": 0.0123 * count + kept / 7,
    }
    return AttackReport(**{**fields, **other})


def missing(threat: tuple[str, float | None]) -> AttackReport:
    """A white-box attack on a model without gradients."""
    nothing: dict[str, Any] = dict.fromkeys(("accuracy", "interval", "median_l2", "median_linf", "median_l1"))
    return replace(attack(0, threat, source="not available", **nothing), count=0, queries=0, seconds=0.0)


def noise(kept: int, **parameters: Any) -> AttackReport:
    """A corruption."""
    return attack(
        kept, ("l2", None), corruption=True, parameters=parameters, queries=2 * COUNT, seconds=0.4375
    )


def attacks(kept: tuple[int, ...]) -> dict[str, AttackReport]:
    """What a white-box suite finds."""
    ce, targeted, ddn, cw, square, normal, uniform = kept
    return {
        "apgd-ce": attack(ce, LINF, parameters={"name": "apgd-ce", "epsilon": 0.3, "steps": 100}),
        "apgd-t": attack(targeted, LINF, parameters={"name": "apgd-t", "epsilon": 0.3, "steps": 100}),
        "ddn": attack(ddn, L2, parameters={"name": "ddn", "steps": 100, "gamma": 0.05}),
        "cw": attack(cw, L2, count=PART, parameters={"name": "cw", "steps": 1000, "lr": 0.01}),
        "square": attack(
            square,
            LINF,
            parameters={"name": "square", "epsilon": 0.3, "queries": 5000},
            after=("apgd-ce", "apgd-t"),
        ),
        "normal-noise": noise(normal, name="normal-noise", sigma=0.3),
        "uniform-noise": noise(uniform, name="uniform-noise", epsilon=0.3, norm="linf"),
    }


def replayed(found: dict[str, AttackReport]) -> dict[str, AttackReport]:
    """The same examples under another runtime; query attacks are run on it again."""
    return {
        name: each
        if name == "square" or each.corruption
        else replace(each, source="replay", queries=2 * each.count, seconds=0.0, agreement=0.995)
        for name, each in found.items()
    }


def curves(*steps: float) -> tuple[AccuracyCurve, AccuracyCurve]:
    """Accuracy at nine radii in each norm, falling by each of the steps."""
    accuracy = tuple(round(float(value), 3) for value in torch.tensor(steps))
    linf = tuple(round(0.05 * place, 2) for place in range(len(steps)))
    l2 = tuple(0.5 * place for place in range(len(steps)))
    softer = tuple(round(value * (1 - 0.05 * place), 3) for place, value in enumerate(accuracy))
    return AccuracyCurve("APGD-CE", "linf", COUNT, linf, accuracy), AccuracyCurve(
        "DDN", "l2", COUNT, l2, softer
    )


QUIET = (
    CheckReport("step order", "disqualifying", False, -0.021, 0.01, "FGSM left 95.1%, PGD 93.0%."),
    CheckReport("unbounded", "disqualifying", False, 0.0, 0.1, "Linf 0.5 left 0.0%; chance is 10.0%."),
    CheckReport("zero gradients", "disqualifying", False, 0.012, 0.1, "1.2% of the gradients are zero."),
    CheckReport("random logits", "disqualifying", False, 0.0, 1e-05, "Two calls differ by at most 0."),
)
CORRUPTED = CorruptionReport(
    "imagecorruptions-imaug 1.1.5",
    COUNT,
    0.775,
    (0.761, 0.789),
    {"fog": (0.9, 0.85, 0.8, 0.7, 0.5), "jpeg_compression": (0.9, 0.85, 0.8, 0.75, 0.7)},
)
SCALED = CheckReport(
    "scale",
    "disqualifying",
    True,
    0.431,
    0.02,
    "PGD on cross-entropy left 74.3%, the same attack on the logit margin 31.2%: large logits saturate the "
    "softmax, and its gradient vanishes.",
)
BLACK_BOX = CheckReport(
    "black-box",
    "advisory",
    True,
    0.014,
    0.011,
    "Square fooled 1.4% of the images that no white-box attack fooled; try the suite strict.",
)


def model(name: str, runtime: str, kept: tuple[int, ...], **other: Any) -> ModelReport:
    """A model that `kept` so many images: clean, in the worst case, and under each attack."""
    clean, worst, *each = kept
    found = replayed(attacks(tuple(each))) if runtime == "onnx" else attacks(tuple(each))
    fields: dict[str, Any] = {
        "name": name,
        "runtime": runtime,
        "bits": 32,
        "nbytes": 13_104_512,
        "clean": clean / COUNT,
        "clean_interval": wilson(clean, COUNT),
        "worst_case": worst / COUNT,
        "worst_case_interval": wilson(worst, COUNT),
        "aa_standard": None,
        "aa_standard_interval": None,
        "certified": None,
        "certified_interval": None,
        "agreement": 0.998 if runtime == "onnx" else None,
        "attacks": found,
        "curves": (),
        "checks": () if runtime == "onnx" else QUIET,
        "verdict": "established",
        "seconds": 3 + sum(each.seconds for each in found.values()),
    }
    return ModelReport(**{**fields, **other})


@pytest.fixture
def report() -> Report:
    """Float and 3 bits under both runtimes, a model that masks gradients, and a file alone."""
    small: dict[str, Any] = {"bits": 3, "nbytes": 1_252_901}
    vendor = {
        **dict.fromkeys(("apgd-ce", "apgd-t"), missing(LINF)),
        "ddn": missing(L2),
        "square": attack(412, LINF),
        "transfer": attack(
            655, LINF, parameters={"name": "transfer", "method": {"name": "mim", "steps": 10}}
        ),
        "normal-noise": noise(961, name="normal-noise", sigma=0.3),
    }
    return Report(
        suite="standard",
        norm="linf",
        epsilon=0.3,
        seed=0,
        processes=2,
        eot=1,
        data={
            "name": "mnist",
            "split": "test",
            "count": COUNT,
            "indices": list(range(0, 10 * COUNT, 10)),
            "digest": "9f0e" * 16,
        },
        models=(
            model(
                "adversarial float",
                "torch",
                (993, 938, 943, 940, 871, 178, 951, 990, 989),
                curves=curves(0.993, 0.99, 0.984, 0.975, 0.967, 0.957, 0.943, 0.731, 0.122),
                checks=(*QUIET, BLACK_BOX),
                corruptions=CORRUPTED,
            ),
            model("adversarial float", "onnx", (993, 938, 943, 940, 871, 178, 951, 990, 989)),
            model(
                "robust 3 bits",
                "torch",
                (990, 909, 921, 913, 842, 171, 925, 985, 984),
                curves=curves(0.99, 0.985, 0.976, 0.966, 0.952, 0.939, 0.921, 0.512, 0.047),
                aa_standard=0.911,
                aa_standard_interval=wilson(911, COUNT),
                certified=0.853,
                certified_interval=wilson(853, COUNT),
                **small,
            ),
            model("robust 3 bits", "onnx", (990, 908, 921, 912, 842, 171, 926, 985, 984), **small),
            model(
                "mapped, mu 255",
                "torch",
                (981, 287, 431, 312, 3, 0, 402, 951, 940),
                curves=curves(0.981, 0.902, 0.811, 0.724, 0.613, 0.515, 0.431, 0.4, 0.381),
                checks=(SCALED, *QUIET),
                verdict="not established",
                **small | {"nbytes": None},
            ),
            model(
                "vendor.onnx",
                "onnx",
                (978, 401) + (0,) * 7,
                attacks=vendor,
                bits=None,
                nbytes=4_402_118,
                agreement=None,
                verdict="not assessed",
            ),
        ),
        provenance={
            "command": "muquant bench runs/float runs/qat vendor.onnx --data mnist -o report",
            "date": "2026-01-31T12:00:00+00:00",
            "processor": "Some CPU with 2 cores",
            "threads": 1,
            "versions": {"python": "3.11.9", "muquant": "0.1.0", "torch": "2.15.0", "onnxruntime": "1.27.0"},
        },
    )


def picture(index: int, model: str = "robust 3 bits", name: str = "apgd-ce", **other: Any) -> Picture:
    """A digit-like picture of the headline threat."""
    generator = torch.Generator().manual_seed(index)
    channels, side = other.pop("channels", 1), other.pop("side", 28)
    clean = torch.rand(channels, side, side, generator=generator)
    sign = torch.randint(2, clean.shape, generator=generator) * 2.0 - 1
    perturbed = (clean + 0.25 * sign).clamp(0, 1)
    fields: dict[str, Any] = {
        "label": "seven",
        "seen_clean": "seven",
        "seen": "three",
        "clean": clean,
        "perturbed": perturbed,
        "l2": float((perturbed - clean).norm()),
        "linf": float((perturbed - clean).abs().max()),
    }
    return Picture(model=model, attack=name, index=index, **{**fields, **other})


@pytest.fixture
def pictures() -> list[Picture]:
    """Grey ones of two attacks, and one in colour."""
    return [
        *(picture(index) for index in range(4)),
        picture(4, name="ddn"),
        picture(5, model="adversarial float", channels=3, side=32),
    ]
