"""A finished weight is taken where it can have come of the float one, and refused by name elsewhere."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from muquant import InputError, MuLawSpec
from muquant.format.channels import Channels
from muquant.quantization.outcome import Outcome, OutputQuality
from muquant.quantization.quantize import quantize
from muquant.quantization.resume import FinishedWeights

SPEC, CHANNELS = MuLawSpec(3), Channels()


def outcome_of(weight: torch.Tensor, spec: MuLawSpec = SPEC, channels: Channels = CHANNELS) -> Outcome:
    return quantize(weight, spec, channels, "search", "nearest")


def test_what_was_kept_is_found(tmp_path: Path) -> None:
    weight = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    kept, shift = FinishedWeights(tmp_path), torch.arange(6.0)
    outcome = replace(outcome_of(weight), shift=shift, output=OutputQuality(12.0, float("inf")))
    kept.put("0" * 64, outcome)
    found = kept.get("0" * 64, weight, SPEC, CHANNELS)
    assert found is not None
    assert found.output == outcome.output
    assert torch.equal(found.tensor.dequantize(), outcome.tensor.dequantize())
    assert found.shift is not None
    assert torch.equal(found.shift, shift)
    assert kept.get("1" * 64, weight, SPEC, CHANNELS) is None


ALTERED: dict[str, Callable[[Outcome, torch.Tensor], Outcome]] = {
    "another shape": lambda _, weight: outcome_of(weight[:, :9]),
    "as many weights": lambda _, weight: outcome_of(weight.T.contiguous()),
    "other channels": lambda _, weight: outcome_of(weight, channels=Channels((1,))),
    "more bits": lambda _, weight: outcome_of(weight, MuLawSpec(4)),
    "other steps": lambda _, weight: outcome_of(weight, MuLawSpec(3, granularity="tensor")),
    "an unknown method": lambda outcome, _: replace(outcome, rounding="[red]"),
    "no ratio": lambda outcome, _: replace(outcome, output=OutputQuality(1.0, float("nan"))),
    "a shift of NaN": lambda outcome, _: replace(outcome, shift=torch.full((6,), torch.nan)),
    "a shift of too many": lambda outcome, _: replace(outcome, shift=torch.zeros(7)),
    "a shift of integers": lambda outcome, _: replace(outcome, shift=torch.zeros(6, dtype=torch.int64)),
}


@pytest.mark.parametrize("alter", ALTERED.values(), ids=list(ALTERED))
def test_what_cannot_have_come_of_the_weight_is_refused(
    tmp_path: Path, alter: Callable[[Outcome, torch.Tensor], Outcome]
) -> None:
    weight = torch.randn(6, 10, generator=torch.Generator().manual_seed(0))
    kept = FinishedWeights(tmp_path)
    kept.put("0" * 64, alter(outcome_of(weight), weight))
    with pytest.raises(InputError, match=f"{'0' * 64}.*delete it"):
        kept.get("0" * 64, weight, SPEC, CHANNELS)
