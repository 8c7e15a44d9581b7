"""What samples do for the whole network, which is the judge."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import muquant as mq
from muquant import MuLawSpec
from muquant.compression.answers.modules import ask_held_out, run_module
from muquant.compression.calibration import samples_of
from muquant.compression.options import CompressionOptions
from muquant.compression.quantizer import NO_HELP


def network(seed: int, depth: int, norm: bool = False) -> nn.Module:
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for _ in range(depth):
        layers += [nn.Linear(24, 24), *([nn.BatchNorm1d(24)] if norm else []), nn.ReLU()]
        nn.init.kaiming_normal_(layers[-2 - norm].weight)  # type: ignore[arg-type]
    return nn.Sequential(*layers, nn.Linear(24, 4)).eval()


def uneven(seed: int, count: int) -> Tensor:
    """Samples of which few are large: those to fit to say little of those held out."""
    generator = torch.Generator().manual_seed(seed)
    return (
        torch.randn(count, 24, generator=generator) * torch.rand(count, 1, generator=generator).mul(3).exp()
    )


@pytest.mark.parametrize("flat", [True, False])
def test_held_out_answers_are_never_worse_than_without_samples(flat: bool) -> None:
    helped = []
    for seed in range(8):
        model, samples = network(seed, 3, norm=seed % 2 == 0), uneven(seed, 8)
        spec = MuLawSpec(2 if flat else 3)
        found = mq.compress(model, spec, flat=flat, calibration=samples, check=False)
        widths = {f"={layer.name}": layer.bits for layer in found.report}
        plain = mq.compress(model, spec, overrides=widths, check=False)
        options = CompressionOptions(calibration=samples).taken_by_module(model)
        exact = ask_held_out(model, options, 32)

        lost, least = (exact.distortion(partial(run_module, each.module)) for each in (found, plain))
        assert lost <= least
        helped.append({layer.not_calibrated for layer in found.report} != {NO_HELP})
        if helped[-1]:
            continue
        for name, value in plain.module.state_dict().items():  # biases and statistics as well
            torch.testing.assert_close(found.module.state_dict()[name], value, rtol=0, atol=0)
            assert found.batch_norm is None
    assert len(set(helped)) == 2, helped


def test_errors_in_front_are_made_up_for(monkeypatch: pytest.MonkeyPatch) -> None:
    lost: dict[bool, float] = {}
    x = torch.randn(400, 24)
    for in_turn in (True, False):
        monkeypatch.setattr(CompressionOptions, "in_turn", in_turn)
        lost[in_turn] = 0.0
        for seed in range(3):
            model = network(seed, 6)
            found = mq.compress(model, MuLawSpec(2), flat=True, calibration=x[:300], check=False).module
            with torch.no_grad():
                exact, other = model(x[300:]), found(x[300:])
            lost[in_turn] += float((exact - other).square().sum() / exact.square().sum())
    assert lost[True] < 0.75 * lost[False]


def test_a_trial_of_widths_is_not_done_again(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    def counted(*arguments: Any) -> Any:
        calls[-1] += 1
        return samples_of(*arguments)

    monkeypatch.setattr("muquant.compression.pipeline.samples_of", counted)
    for seed in range(4):
        calls.append(0)
        mq.compress(network(seed, 3), calibration=torch.randn(64, 24), check=False)
    assert set(calls) == {1, 2}  # the best widths are one for all, or are tried beside that
