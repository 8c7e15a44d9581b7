"""Layers calibrated one after the other, beside the same modules looked at through hooks."""

import copy
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from muquant import InputError, MuLawSpec
from muquant.compression.calibration import abreast, operators, samples_of, split
from muquant.compression.calibration.paused import PausedCall
from muquant.compression.layers import Weight, quantizable_weights
from muquant.models.calls import Inputs
from muquant.quantization.moments import InputMoments
from muquant.quantization.outcome import Outcome
from muquant.quantization.quantize import quantize


class Attention(nn.Module):
    """Three products with one value, a residual, a layer that is used twice, one that few samples reach, a
    convolution; it keeps values in itself, and draws random numbers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.table = nn.Embedding(20, 12)
        self.q, self.k, self.v = (nn.Linear(12, 12) for _ in range(3))
        self.twice, self.rare, self.never = nn.Linear(12, 12), nn.Linear(12, 12), nn.Linear(12, 12)
        self.conv, self.last = nn.Conv1d(12, 8, 3, groups=2), nn.Linear(8, 5)
        self.kept = torch.zeros(0)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.table(tokens)
        self.kept = x
        mixed = functional.scaled_dot_product_attention(self.q(x), self.k(x), self.v(x))
        x = self.kept + functional.dropout(mixed, 0.1, training=True)
        x = self.twice(self.twice(x).relu())
        if bool((tokens[0, 0] < 10).item()):
            x = x + self.rare(x)
        return self.last(self.conv(x.mT).mT.relu())  # type: ignore[no-any-return]


def tokens(count: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    batches = [torch.randint(20, (size, 7), generator=generator) for size in (5, 8, 8, 3, 9, 4)[:count]]
    for place, batch in enumerate(batches):
        batch[0, 0] = 3 if place % 3 != 2 else 13
    return batches


def seen(model: nn.Module, layer: str, batches: list[Tensor]) -> list[Tensor]:
    """Oracle: what a linear layer is given, the last time in each batch, by a hook."""
    found: list[Tensor] = []
    hook = model.get_submodule(layer).register_forward_pre_hook(lambda _, args: found.append(args[0]))
    with torch.no_grad():
        for batch in batches:
            torch.manual_seed(0)
            model(batch)
    hook.remove()
    return found


def rounded(weight: Weight, samples: InputMoments | None) -> Outcome:
    value = weight.value.detach()
    return quantize(
        value,
        MuLawSpec(2),
        weight.channels,
        "search",
        "compensated" if samples else "nearest",
        samples,
        biased=True,
    )


def put(model: nn.Module, weight: Weight, outcome: Outcome) -> None:
    model.get_parameter(weight.name).data = outcome.tensor.dequantize()
    if outcome.shift is not None:
        model.get_submodule(weight.layer).bias.data += outcome.shift  # type: ignore[operator]


def test_layers_see_what_those_in_front_have_become() -> None:
    model, batches = Attention().eval(), tokens(6)
    weights, changed = quantizable_weights(model), copy.deepcopy(model)
    samples = split(batches)
    fit = [part.tensors[0] for part in samples[0].parts]
    done: dict[Weight, Outcome] = {}
    order: list[str] = []
    before = threading.active_count()
    for weight, known, unseen in samples_of(model, weights, samples, done):
        order.append(weight.layer)
        if weight.layer in ("table", "never"):
            assert known is None
            assert unseen
        elif weight.layer == "twice":  # by the float model alone
            assert known is not None
            assert known.fit.drift is None
        else:
            assert known is not None
            own = [batch for batch in fit if weight.layer != "rare" or batch[0, 0] < 10]
            exact, found = (seen(each, weight.layer, own) for each in (model, changed))
            if weight.layer == "conv":
                exact, found = (
                    [
                        x.unfold(2, 3, 1).movedim(1, 2).flatten(0, 1).reshape(-1, 2, 18).movedim(1, 0)
                        for x in each
                    ]
                    for each in (exact, found)
                )
            else:
                exact, found = ([x.flatten(0, 1)[None] for x in each] for each in (exact, found))
            x, drift = torch.cat(found, 1), torch.cat(exact, 1) - torch.cat(found, 1)
            assert known.fit.count == x.shape[1]
            assert known.fit.drift is not None
            close(known.fit.second, x.mT @ x / x.shape[1])
            close(known.fit.drift.cross, drift.mT @ x / x.shape[1])
            assert drift.abs().max() > 1e-3
            assert known.held_out.drift is not None
            assert known.held_out.drift.second is not None
        done[weight] = rounded(weight, known)
        put(changed, weight, done[weight])
    assert order == ["table", "twice", "never", "q", "k", "v", "rare", "conv", "last"]
    assert threading.active_count() == before


def close(found: Tensor, expected: Tensor) -> None:
    np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=1e-4, atol=1e-5)


def test_who_stops_early_leaves_nothing_behind() -> None:
    model, before = Attention().eval(), threading.active_count()
    found: Iterator[Any] = samples_of(model, quantizable_weights(model), split(tokens(6)), {})
    for _ in range(4):
        next(found)
    assert threading.active_count() > before
    found.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_a_batch_that_the_model_does_not_take_is_named() -> None:
    model, before = Attention().eval(), threading.active_count()
    batches = [*tokens(5), torch.full((2, 7), 20)]
    with pytest.raises(InputError, match=r"does not run on inputs of shape \[\(2, 7\)\]"):
        list(samples_of(model, quantizable_weights(model), split(batches), {}))
    assert threading.active_count() == before


def test_where_few_samples_fit_in_memory_they_are_some_or_none(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    weights, samples = quantizable_weights(model), split(torch.randn(400, 8))
    for memory, count in ((2**30, 400), (4 * 4 * 8 * 100, 100), (4 * 4 * 8 * 20, 400)):
        monkeypatch.setattr(abreast, "MEMORY", memory)
        found = list(samples_of(model, weights, samples, {}))
        vectors = [known.fit.count + known.held_out.count for _, known, _ in found if known]
        assert vectors == [count, count]
        taken, _ = abreast.in_line(model, weights, samples)
        assert bool(taken) == (count == 100 or memory == 2**30)


def test_no_more_samples_run_than_show_enough_vectors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(operators, "LEAST_VECTORS", 500)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    weights, samples = quantizable_weights(model), split(torch.randn(400, 5, 8))
    _, some = abreast.in_line(model, weights, samples)
    assert sum(own.count for own in some) == 100
    for _, known, _ in samples_of(model, weights, samples, {}):
        assert known is not None
        assert known.fit.count + known.held_out.count == 500


def test_many_small_batches_do_not_all_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(abreast, "MOST_CALLS", 8)
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    _, some = abreast.in_line(
        model, quantizable_weights(model), split([torch.randn(1, 8, n).mT for n in range(1, 41)])
    )
    assert 2 <= sum(len(own.parts) for own in some) <= 8


def test_a_call_draws_the_same_numbers_and_leaves_the_others_alone() -> None:
    class Noise(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            drawn.append(torch.rand(3))
            x = x @ x
            drawn.append(torch.rand(3))
            return x

    drawn: list[Tensor] = []
    calls = [PausedCall(Noise(), Inputs.of(torch.ones(2, 2)), lambda _: True) for _ in range(2)]
    torch.manual_seed(5)
    for _ in range(3):  # either side of a product may be the weight
        for call in calls:
            call.go_on()
    for call in calls:
        call.close()
    after = torch.rand(3)
    torch.manual_seed(5)
    assert torch.equal(after, torch.rand(3))
    first, other, second, last = drawn
    assert torch.equal(first, other)
    assert torch.equal(second, last)
    assert not torch.equal(first, second)
