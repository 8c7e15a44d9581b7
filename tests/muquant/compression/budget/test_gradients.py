"""What errors of weights do to the answers, by gradients, beside what they do when the network is run."""

from collections.abc import Sequence
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from muquant.compression.answers.distortion import distortion
from muquant.compression.budget import gradients as by
from muquant.compression.budget.gradients import Run, by_gradients
from muquant.compression.budget.measure import measure_module
from muquant.compression.layers import select_weights
from muquant.compression.options import CompressionOptions


@pytest.fixture
def many_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(by, "FOR_EACH", 400)


def answers(first: Tensor, second: Tensor, x: Tensor) -> list[tuple[str, Tensor]]:
    hidden = torch.tanh(x @ first)
    return [("boxes", hidden @ second), ("logits", 9 * hidden), ("places", hidden.argmax(1))]


@pytest.mark.usefixtures("many_draws")
def test_small_errors_do_to_the_answers_what_gradients_say() -> None:
    torch.manual_seed(0)
    first, second, samples = torch.randn(8, 6), torch.randn(6, 5), torch.randn(4, 3, 8)
    second[:, 1] *= 50  # a unit of its own
    errors = {
        "first": {2: 1e-3 * torch.randn(8, 6), 4: 1e-5 * torch.randn(8, 6)},
        "second": {2: 1e-3 * torch.randn(6, 5)},
    }
    runs: list[Run] = [partial(answers, first, second, x) for x in samples]
    found = by_gradients({"first": first, "second": second}, errors, runs)
    for name, own in errors.items():
        for bits, error in own.items():
            given = {"first": first.double(), "second": second.double()}
            changed = {**given, name: given[name] + error.double()}
            lost = [
                distortion(key, one, other)
                for x in samples
                for (key, one), (_, other) in zip(
                    answers(given["first"], given["second"], x.double()),
                    answers(changed["first"], changed["second"], x.double()),
                    strict=True,
                )
                if one.is_floating_point()
            ]
            expected = sum(each for each in lost if each is not None) / len(lost)
            assert found[name][bits] == pytest.approx(expected, rel=0.15)  # 1,600 draws: 4 % each way


def test_weights_without_a_gradient_are_left_out_and_all_are_as_they_were() -> None:
    heard, deaf, cut = torch.randn(3, 2), torch.randn(3, 2), torch.randn(3, 2)
    heard.requires_grad_(True)

    def run() -> Sequence[tuple[str, Tensor]]:
        x = torch.ones(4, 3)
        return [("y", x @ heard + (x @ cut).round())]

    seen: list[tuple[int, int]] = []
    weights = {"heard": heard, "deaf": deaf, "cut": cut}
    errors = {name: {3: torch.full((3, 2), 0.1)} for name in weights}
    with torch.inference_mode():
        found = by_gradients(weights, errors, [run, run], lambda *place: seen.append(place))
    assert found.keys() == {"heard"}
    assert found["heard"][3] > 0
    assert seen == [(0, 2), (1, 2)]
    assert [each.requires_grad for each in weights.values()] == [True, False, False]
    assert by_gradients(weights, errors, [lambda: [("class", torch.ones(3, dtype=torch.int64))]]) == {}


class Network(nn.Module):
    """Of which the last layer may compute so that torch has no gradient of it."""

    def __init__(self, *, hidden: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.hidden = nn.Linear(16, 24), nn.Linear(24, 8), hidden

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.first(x))
        if not self.hidden:
            answer: Tensor = self.second(x)
            return answer
        with torch.no_grad():
            return functional.linear(x, self.second.weight, self.second.bias)


def test_a_module_is_run_for_each_weight_only_where_there_is_no_gradient() -> None:
    samples = torch.randn(40, 16)
    lost, steps = {}, list[tuple[bool, str]]()
    for hidden in (False, True):
        module = Network(hidden=hidden).eval()
        options = CompressionOptions(calibration=samples).taken_by_module(module)
        weights = dict.fromkeys(select_weights(module, "all", None))
        tell = partial(lambda hidden, what, *_: steps.append((hidden, what)), hidden)
        lost[hidden] = measure_module(module, weights, options, None, tell).distortions
    assert {(False, "gradients"), (True, "gradients")} <= {*steps}
    assert steps.count((False, "measuring first.weight")) == 1  # by itself
    assert steps.count((True, "measuring first.weight")) == 2  # and in the network
    for by_gradient, by_run in zip(lost[False], lost[True], strict=True):
        for bits in by_run:
            assert by_gradient[bits] == pytest.approx(by_run[bits], rel=0.6)
