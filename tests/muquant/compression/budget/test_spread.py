"""Widths by what errors do to the answers, that are so many bits on average."""

import itertools
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor, nn

import muquant
from muquant import MuLawSpec
from muquant.compression.budget import WidthCurve, WidthPoint
from muquant.compression.budget.curve import WIDTHS
from muquant.compression.budget.probe import probed
from muquant.compression.budget.spread import spread, widths_within


def curve(name: str, size: int, power: float, pinned: int | None = None) -> WidthCurve:
    points = tuple(WidthPoint(bits, size * bits + 4, power * 4.0**-bits) for bits in WIDTHS)
    return WidthCurve(name, "answers", pinned, points)


@given(
    st.lists(st.tuples(st.integers(1, 50), st.floats(0.01, 100)), min_size=2, max_size=4), st.integers(2, 8)
)
def test_no_other_widths_of_that_average_have_less_noise(weights: list[tuple[int, float]], bits: int) -> None:
    curves = [curve(str(place), *weight) for place, weight in enumerate(weights)]
    found = widths_within(curves, bits)
    budget = bits * sum(size for size, _ in weights)
    best = min(
        sum(power * 4.0**-width for (_, power), width in zip(weights, widths, strict=True))
        for widths in itertools.product(WIDTHS, repeat=len(weights))
        if sum(size * width for (size, _), width in zip(weights, widths, strict=True)) <= budget
    )
    assert sum(size * found[str(place)] for place, (size, _) in enumerate(weights)) <= budget
    noise = sum(power * 4.0 ** -found[str(place)] for place, (_, power) in enumerate(weights))
    assert noise == pytest.approx(best)


def test_what_was_asked_for_is_not_in_the_average() -> None:
    found = widths_within([curve("a", 10, 1.0), curve("b", 10, 1.0), curve("c", 1000, 1.0, pinned=8)], 3)
    assert found == {"a": 3, "b": 3, "c": 8}


def test_distortions_scale_the_noise_of_all_widths() -> None:
    curves = [curve("a", 10, 1.0), curve("b", 10, 4.0), curve("unseen", 10, 1.0)]
    lost = [{2: 0.5, 4: 0.5 / 64}, {2: 0.25, 4: 0.25 / 16}, {2: 0.0, 4: 0.0}]
    steep, plain, unseen = probed(curves, lost, 1.0)
    assert [each.measured_on for each in (steep, plain, unseen)] == ["answers", "answers", "weight"]
    for bits, expected in ((2, 0.5), (3, 0.5 / 8), (4, 0.5 / 64), (5, 0.5 / 256)):
        assert steep.at(bits).noise == pytest.approx(expected)
    for bits in WIDTHS:
        assert plain.at(bits).noise == pytest.approx(0.25 * 4.0 ** (2 - bits))
    means = [(8 * 4) ** 0.5 * 2 / 2**0.5, 1.0]
    assert unseen.at(2).noise == pytest.approx((means[0] * means[1]) ** 0.5 / 16, rel=1)
    assert probed(curves, [{}, {}, {}], 1.0) == curves
    nothing = probed(curves, lost, 0.0)
    assert [each.points for each in nothing] == [each.points for each in curves]


class Uneven(nn.Module):
    """Two layers side by side, of which the answer hardly hears one, and one that no input reaches."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.loud, self.quiet, self.deaf = nn.Linear(64, 16), nn.Linear(64, 16), nn.Linear(64, 16)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.loud(x) + 1e-3 * self.quiet(x)
        return answer


def widths(compressed: muquant.CompressedModel) -> dict[str, int]:
    return {name.removesuffix(".weight"): tensor.spec.bits for name, tensor in compressed.tensors.items()}


def test_bits_go_where_the_answers_depend_on_them() -> None:
    torch.manual_seed(0)
    x = torch.randn(40, 64)
    for given_ in ({"calibration": x}, {"example": x[:4]}):
        compressed = muquant.compress(Uneven(), **given_)  # type: ignore[arg-type]
        found = widths(compressed)
        assert found["loud"] > 3 > found["quiet"]
        assert compressed.average_bits.codes <= 3
        assert compressed.average_bits.narrowest == 2
        assert compressed.average_bits.stored == pytest.approx(
            8 * sum(layer.nbytes for layer in compressed.report) / (3 * 64 * 16)
        )
    assert set(widths(muquant.compress(Uneven(), calibration=x, flat=True)).values()) == {3}


def test_the_float_model_is_as_it_was() -> None:
    model = Uneven()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    muquant.compress(model, example=torch.randn(4, 64))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, before[name], rtol=0, atol=0)


def test_recurrent_weights_and_overrides_stand_aside() -> None:
    torch.manual_seed(0)

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.memory, self.first, self.second = nn.GRU(8, 8), nn.Linear(8, 8), nn.Linear(8, 8)
            self.last = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            seen = torch.tanh(self.first(self.memory(x)[0]))
            answer: Tensor = self.last(torch.tanh(self.second(seen)))
            return answer

    compressed = muquant.compress(Mixed(), example=torch.randn(5, 2, 8), overrides={"last": 6})
    found = widths(compressed)
    assert {name: found[name] for name in found if name.startswith("memory")} == {
        "memory.weight_ih_l0": 8,
        "memory.weight_hh_l0": 8,
    }
    assert found["last"] == 6
    assert found["first"] + found["second"] <= 6


def test_a_narrow_grid_bounds_the_widths() -> None:
    x = torch.randn(8, 64)
    found = widths(muquant.compress(Uneven(), MuLawSpec(3, grid="int4"), example=x))
    assert found["loud"] == 4


@pytest.mark.parametrize(("lost", "taken"), [({0.0: 0.1, 1.0: 0.3}, 0.0), ({0.0: 0.6, 1.0: 0.9}, 1.0)])
def test_a_network_that_answers_nothing_is_no_judge(lost: dict[float, float], taken: float) -> None:
    """Where nearest levels leave nothing of the answers, widths are those that measurements ask for."""
    loud = {0.0: (4.0, 1.0), 0.5: (4.0, 1.0), 0.75: (4.0, 1.0), 1.0: (1.0, 4.0)}
    curves = {trust: [curve("a", 10, a), curve("b", 10, b)] for trust, (a, b) in loud.items()}
    found = {trust: widths_within(each, 3) for trust, each in curves.items()}
    assert found[0.0] != found[1.0]
    measured: Any = SimpleNamespace(
        curves=curves[0.0],
        probe=object(),
        made_up=False,
        trusted=curves.__getitem__,
        distortion=lambda widths: lost[1.0 if widths == found[1.0] else 0.0],
    )
    assert spread(measured, 3, lambda widths: float(len(set(widths.values())) == 1)) == found[taken]
