import inspect
from collections.abc import Callable
from dataclasses import MISSING, fields
from typing import Any

import pytest
import torch

import muquant
import muquant_onnx
from muquant import InputError, MuLawSpec
from muquant.compression.options import CompressionOptions

SAMPLES = torch.zeros(8, 3)


@pytest.mark.parametrize(
    "function",
    [muquant.compress, muquant.plan_widths, muquant_onnx.compress_onnx, muquant_onnx.plan_onnx],
    ids=lambda function: function.__name__,
)
def test_every_option_is_a_keyword_of_the_four_functions(function: Callable[..., Any]) -> None:
    given = inspect.signature(function).parameters
    for field in fields(CompressionOptions):
        if field.name in ("flat", "synthetic") and function.__name__.startswith("plan"):
            continue  # a plan chooses widths
        default = None if field.default is MISSING else field.default  # None stands for no overrides
        assert given[field.name].default == default, field.name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"observer": "x"}, "observer 'x' is unknown; expected one of search, absmax"),
        ({"rounding": "x"}, "rounding 'x' is unknown"),
        ({"rounding": "compensated"}, "needs samples; give a calibration"),
        ({"calibration": SAMPLES[:3]}, "at least 4 samples, found 3"),
        ({"calibration": "x"}, "expected a tensor, a sequence of tensors"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused_when_it_is_asked_for(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        CompressionOptions(**options)


def test_what_is_meant() -> None:
    nothing = CompressionOptions()
    assert nothing.are_default
    assert (nothing.format, nothing.method, nothing.samples) == (MuLawSpec(), "balanced", None)
    some = CompressionOptions(spec=MuLawSpec(4), calibration=SAMPLES)
    assert (some.format, some.method) == (MuLawSpec(4), "reconstructed")
    assert some.samples is not None
    assert [part.count for part in some.samples] == [6, 2]
    assert some.samples is some.samples  # split once


@pytest.mark.parametrize(
    "options",
    [
        {"spec": MuLawSpec()},
        {"layers": "^a"},
        {"overrides": {"a": 4}},
        {"rounding": "nearest"},
        {"observer": "absmax"},
        {"calibration": SAMPLES},
    ],
    ids=lambda options: next(iter(options)),
)
def test_whatever_is_asked_for_is_not_the_default(options: dict[str, Any]) -> None:
    assert not CompressionOptions(**options).are_default
    assert CompressionOptions(corrections=False).are_default  # which needs samples to mean anything
