"""Plans for PyTorch modules: what they say is what compression then does."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import muquant
from muquant import InputError, MuLawSpec, plan_widths
from muquant.compression.budget.answers import answers, count_changed


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Embedding(30, 8), nn.Flatten(), nn.Linear(40, 24), nn.ReLU(), nn.Linear(24, 5)
    ).double()  # compression widens or narrows to float32


def tokens(count: int = 200) -> Tensor:
    return torch.randint(30, (count, 5), generator=torch.Generator().manual_seed(0))


SPEC = MuLawSpec(mu=1.5)  # mu is not searched, for which most of the time goes


def follow(model: nn.Module, plan: muquant.Plan, **options: Any) -> muquant.CompressedModel:
    return muquant.compress(model, SPEC, layers=plan.layers, overrides=plan.overrides, **options)


@pytest.mark.parametrize("calibration", [None, tokens()], ids=["weights", "answers"])
def test_a_plan_s_figures_are_those_of_the_compressed_model(calibration: Tensor | None) -> None:
    model = network()
    plan = plan_widths(model, SPEC, max_bytes=1000, calibration=calibration)
    assert plan.nbytes <= 1000
    assert plan == plan_widths(model, SPEC, max_bytes=1000, calibration=calibration)
    compressed = follow(model, plan, calibration=calibration, rounding="nearest")
    assert sum(layer.nbytes for layer in compressed.report) == plan.nbytes
    for layer, curve in zip(compressed.report, plan.curves, strict=True):
        assert (layer.name, layer.bits) == (curve.name, plan.bits[curve.name])
        assert curve.measured_on == ("weight" if calibration is None else "answers")
        assert curve.at(layer.bits).nbytes == layer.nbytes
        if calibration is None:
            assert curve.at(layer.bits).sqnr == pytest.approx(layer.sqnr)
    noise = [point.noise for point in plan.curves[1].points]
    assert all(np.diff(noise) < 0)
    assert plan.noise == pytest.approx(sum(c.at(plan.bits[c.name]).noise for c in plan.curves))


def test_the_drop_is_that_of_the_model_that_follows_the_plan() -> None:
    model, x = network(), tokens()
    steps: list[tuple[str, int, int]] = []
    plan = plan_widths(model, SPEC, max_drop=4, calibration=x, on_step=lambda *step: steps.append(step))
    assert plan.drop is not None
    held_out = x[3::4]
    with torch.no_grad():
        exact = model(held_out).argmax(1)
        found = follow(model, plan, calibration=x).module(held_out).argmax(1)
    assert (plan.drop.changed, plan.drop.answers) == (int((found != exact).sum()), 50)
    assert plan.drop.points <= 4
    assert [what for what, _, _ in steps[:3]] == [f"measuring {i}.weight" for i in (0, 2, 4)]
    assert 0 < plan.nbytes < plan_widths(model, SPEC, max_bytes=10**6).nbytes
    assert len(steps) > 4  # more than one plan was tried


def test_a_searched_mu_is_near_enough_for_all_widths() -> None:
    torch.manual_seed(0)
    model = nn.Linear(24, 12)
    plan = plan_widths(model, max_bytes=10**6)
    for bits in (2, 3, 5, 8):
        (layer,) = muquant.compress(model, MuLawSpec(bits), rounding="nearest").report
        assert layer.sqnr is not None
        found = plan.curves[0].at(bits).sqnr
        assert found == pytest.approx(layer.sqnr, abs=1e-6 if bits == 3 else 1.0)


class Tied(nn.Module):
    """A weight that two layers share, an attention with three of its own, and an answer with a name."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.embed, self.head = nn.Embedding(20, 8), nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight
        self.mix = nn.MultiheadAttention(8, 2, kdim=4, vdim=6, batch_first=True)

    def forward(self, ids: Tensor) -> Mapping[str, Tensor]:
        hidden = self.embed(ids)
        mixed, _ = self.mix(hidden, hidden[..., :4], hidden[..., :6])
        return {"logits": self.head(mixed + hidden)}


def test_every_weight_has_a_width_of_its_own() -> None:
    model, ids = Tied(), torch.arange(64).reshape(8, 8) % 20
    plan = plan_widths(model, SPEC, max_drop=50, calibration={"ids": ids})
    names = ["embed.weight", "mix.q_proj_weight", "mix.k_proj_weight", "mix.v_proj_weight"]
    assert list(plan.bits) == [*names, "mix.out_proj.weight"]
    assert plan.drop is not None
    assert plan.drop.answers == 2 * 8  # one for each place of the samples held out
    mixed = {**plan.overrides, "=mix.q_proj_weight": 5, "=mix.k_proj_weight": 7, "=mix.v_proj_weight": 4}
    compressed = muquant.compress(model, SPEC, overrides=mixed)
    assert {layer.name: layer.bits for layer in compressed.report if "_proj_" in layer.name} == {
        "mix.q_proj_weight": 5,
        "mix.k_proj_weight": 7,
        "mix.v_proj_weight": 4,
    }
    only = plan_widths(model, SPEC, max_bytes=200, layers="head")  # a weight has one name, its first layer's
    assert list(only.bits) == ["embed.weight"]
    assert [(layer.name, layer.bits) for layer in follow(model, only).report] == list(only.bits.items())
    by_the_other = muquant.compress(model, SPEC, layers="head", overrides={"=head.weight": 6})
    assert [layer.bits for layer in by_the_other.report] == [6]


def test_pinned_layers_keep_their_width() -> None:
    plan = plan_widths(network(), SPEC, max_bytes=700, overrides={"^4$": 8, "=0.weight": 2})
    assert (plan.bits["4.weight"], plan.bits["0.weight"]) == (8, 2)
    assert [curve.pinned for curve in plan.curves] == [2, None, 8]
    assert plan.nbytes <= 700


def test_a_weight_of_nothing_but_zeros_is_as_narrow_as_can_be() -> None:
    model = network()
    torch.nn.init.zeros_(model.get_parameter("2.weight"))
    plan = plan_widths(model, SPEC, max_bytes=10**6)
    assert plan.bits["2.weight"] == 2
    assert [point.noise for point in plan.curves[1].points] == [0.0] * 7


BROKEN = torch.ones(8, 3)
BROKEN[3, 1] = float("nan")


class Nothing(nn.Linear):
    def forward(self, _: Tensor) -> None:  # type: ignore[override]
        return None


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (network(), {}, "needs a limit"),
        (network(), {"max_bytes": 10}, "the narrowest widths allowed take"),
        (network(), {"max_bytes": 900, "overrides": {"foo": 8}}, "override 'foo' matches no layer"),
        (network(), {"max_bytes": 900, "overrides": {"=foo": 8}}, "'=foo': no weight is called foo"),
        (network(), {"max_bytes": 900, "overrides": {"0": 9}}, "bits is 9"),
        (network(), {"max_bytes": 900, "layers": "foo"}, "layers 'foo' matches no layer"),
        (network(), {"max_bytes": 900, "layers": "auto"}, 'layers "auto"'),
        (network(), {"max_bytes": 900, "observer": "eye"}, "observer 'eye' is unknown"),
        (network(), {"max_bytes": 900, "rounding": "compensated"}, "needs samples"),
        (network(), {"max_drop": 1}, "give a calibration"),
        (network(), {"max_drop": 1, "calibration": tokens(3)}, "at least 4 samples"),
        (network(), {"max_drop": 1, "calibration": torch.zeros(8, 3)}, "does not run on inputs"),
        (nn.Linear(3, 2), {"max_drop": 1, "calibration": BROKEN}, "input 0: .* sample 3;"),
        (nn.Linear(3, 2), {"max_bytes": 900, "calibration": BROKEN}, "input 0: .* sample 3;"),
        (nn.ReLU(), {"max_bytes": 900}, "no layer with a weight"),
        (nn.Linear(3, 1), {"max_drop": 1, "calibration": torch.zeros(8, 3)}, "which class is answered"),
        (Nothing(3, 4), {"max_drop": 1, "calibration": torch.zeros(8, 3)}, "returns no tensor"),
    ],
)
def test_bad_input(model: nn.Module, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        plan_widths(model, SPEC, **options)


def test_a_model_that_was_trained_at_few_bits_has_its_widths() -> None:
    with pytest.raises(InputError, match="prepared for quantization-aware training, which fixed its widths"):
        plan_widths(muquant.prepare_qat(network().float()), max_bytes=900)


class Root(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.sqrt()


def test_no_number_is_no_answer() -> None:
    """The float model says NaN to one sample: no compressed one can say the same."""
    x = torch.rand(16, 6) + 0.5
    linear = nn.Linear(6, 4, bias=False)
    linear.weight = nn.Parameter((1 + torch.rand(4, 6)) * torch.tensor([[1.0], [4.0], [16.0], [64.0]]))
    model = nn.Sequential(linear, Root())
    x[7] = -9
    plan = plan_widths(model, SPEC, max_drop=50, calibration=x)
    assert plan.drop is not None
    assert (plan.drop.changed, plan.drop.answers) == (1, 4)
    with pytest.raises(InputError, match="25"):
        plan_widths(model, SPEC, max_drop=10, calibration=x)


def test_answers_that_turn_into_no_number_change() -> None:
    exact, found = torch.eye(3), torch.eye(3)
    found[1, 2] = torch.nan
    assert count_changed([answers(exact)], [answers(found)]).changed == 1
    assert count_changed([answers(found)], [answers(found)]).changed == 1
    assert count_changed([answers(exact)], [answers(exact)]).changed == 0
    pictures = torch.zeros(2, 3, 4, 5)
    pictures[0, 1, 2, 3] = torch.nan
    assert int(answers(pictures).said.isnan().sum()) == 1
