"""Training towards the float network: better on held-out samples or as it was, and the same each time."""

import copy
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from muquant import InputError
from muquant.compression.answers.distortion import distortion
from muquant.compression.layers import quantizable_weights
from muquant.compression.tuning import Rates, Subject, Tuned, subject_of, tune
from muquant.format.spec import MuLawSpec
from muquant.models.calls import Inputs
from muquant.quantization.quantize import quantize


class InterruptedTrainingError(Exception):
    """As by a key."""


class Recurrent(nn.Module):
    """A GRU, an embedding, and a head with the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.gru = nn.Embedding(20, 12), nn.GRU(12, 12, batch_first=True)
        self.head = nn.Linear(12, 20)
        self.head.weight = self.table.weight

    def forward(self, tokens: Tensor) -> dict[str, Tensor]:
        """Logits."""
        return {"logits": self.head(self.gru(self.table(tokens))[0])}


def dense() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(16, 32),
        nn.ReLU(),
        nn.BatchNorm1d(32),
        nn.Linear(32, 32),
        nn.LayerNorm(32),
        nn.Linear(32, 5),
    ).eval()


def encoder() -> nn.Module:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
    return nn.Sequential(
        nn.Linear(16, 16), nn.TransformerEncoder(layer, 1, enable_nested_tensor=False)
    ).eval()


def recurrent() -> nn.Module:
    torch.manual_seed(0)
    return Recurrent().eval()


def subject(reference: nn.Module, bits: int = 2, rest: bool = True) -> Subject:
    """Its weights at their nearest levels."""
    module = copy.deepcopy(reference)
    done = {
        weight: quantize(weight.value.detach(), MuLawSpec(bits), weight.channels, "search", "nearest").tensor
        for weight in quantizable_weights(module)
    }
    return subject_of(module, reference, done, rest=rest)


def batches(seed: int, count: int, *shape: int) -> list[Inputs]:
    generator = torch.Generator().manual_seed(seed)
    return [Inputs.of(torch.randn(8, *shape, generator=generator)) for _ in range(count)]


def tokens(seed: int, count: int) -> list[Inputs]:
    generator = torch.Generator().manual_seed(seed)
    return [Inputs.of(torch.randint(20, (8, 6), generator=generator)) for _ in range(count)]


def run(given: Subject, tuned: Tuned, inputs: Inputs) -> Tensor:
    """The first output of the network that came out."""
    values = {path: tensor.dequantize() for path, tensor in tuned.weights.items()} | dict(tuned.rest)
    found = torch.func.functional_call(given.module, values, inputs.tensors)
    output: Tensor = found["logits"] if isinstance(found, dict) else found
    return output


FIT, HELD_OUT = batches(0, 12, 16), batches(1, 4, 16)


def same(one: Tuned, other: Tuned) -> bool:
    return (
        all(torch.equal(one.weights[path].codes, other.weights[path].codes) for path in one.weights)
        and all(torch.equal(one.weights[path].step, other.weights[path].step) for path in one.weights)
        and all(torch.equal(one.rest[path], other.rest[path]) for path in one.rest)
        and (one.report.after, one.report.step) == (other.report.after, other.report.step)
    )


@pytest.mark.parametrize(
    ("build", "fit", "held_out"),
    [
        (dense, FIT, HELD_OUT),
        (encoder, batches(0, 12, 6, 16), batches(1, 4, 6, 16)),
        (recurrent, tokens(0, 12), tokens(1, 4)),
    ],
)
def test_held_out_answers_come_nearer(build: object, fit: list[Inputs], held_out: list[Inputs]) -> None:
    assert callable(build)
    reference = build()
    given = subject(reference)
    tuned = tune(given, fit, held_out, steps=150)
    assert tuned.report.after < 0.99 * tuned.report.before
    apart = []
    with torch.no_grad():
        for inputs in held_out:
            exact = inputs.call(reference)
            exact = exact["logits"] if isinstance(exact, dict) else exact
            name = "logits" if build is recurrent else ""
            apart.append(distortion(name, exact, run(given, tuned, inputs)))
    assert tuned.report.after == pytest.approx(sum(filter(None, apart)) / len(apart), rel=1e-4)


def test_it_is_the_same_each_time_and_changes_neither_network() -> None:
    given = subject(dense())
    networks = (given.module, given.reference)
    states = [copy.deepcopy(network.state_dict()) for network in networks]
    wanted = [[value.requires_grad for value in network.parameters()] for network in networks]
    found = [tune(given, FIT, HELD_OUT, steps=30) for _ in range(2)]
    assert same(*found)
    for network, state, grads in zip(networks, states, wanted, strict=True):
        assert all(torch.equal(state[name], value) for name, value in network.state_dict().items())
        assert [value.requires_grad for value in network.parameters()] == grads
        assert all(value.grad is None for value in network.parameters())
        assert not any(module._forward_hooks for module in network.modules())
    assert torch.backends.mha.get_fastpath_enabled()


def test_the_start_is_kept_where_nothing_is_better() -> None:
    given = subject(dense(), bits=8)
    tuned = tune(given, FIT, HELD_OUT, steps=30, rates=Rates(weights=5.0))
    assert (tuned.report.step, tuned.report.after) == (0, tuned.report.before)
    for path, (_, start) in given.weights.items():
        assert torch.equal(tuned.weights[path].codes, start.codes)
        assert torch.equal(tuned.weights[path].step, start.step)
    for path in given.rest:
        assert torch.equal(tuned.rest[path], given.module.get_parameter(path))
    assert "nothing was better" in tuned.report.words


def test_a_network_that_answers_nan_is_left_as_it_is() -> None:
    reference = nn.Sequential(dense(), nn.Threshold(1e9, float("nan")))
    tuned = tune(subject(reference), FIT, HELD_OUT, steps=30)
    assert tuned.report.step == 0


def test_biases_and_norms_move_only_where_they_may() -> None:
    moving, fixed = (tune(subject(dense(), rest=rest), FIT, HELD_OUT, steps=30) for rest in (True, False))
    assert set(moving.rest) == {f"{place}.bias" for place in (0, 2, 3, 4, 5)}  # scales of ones are constants
    assert not fixed.rest


@pytest.mark.parametrize("stop", [26, 60])
def test_an_interrupted_training_goes_on_and_ends_alike(stop: int, tmp_path: Path) -> None:
    given = subject(dense())
    whole = tune(given, FIT, HELD_OUT, steps=80)

    def interrupt(step: int, _steps: int, _share: float) -> None:
        if step == stop:
            raise InterruptedTrainingError

    with pytest.raises(InterruptedTrainingError):
        tune(given, FIT, HELD_OUT, steps=80, folder=tmp_path, on_step=interrupt)
    seen: list[int] = []
    resumed = tune(
        given, FIT, HELD_OUT, steps=80, folder=tmp_path, on_step=lambda step, *_: seen.append(step)
    )
    assert same(whole, resumed)
    assert seen[0] == stop // 25 * 25 + 1


def test_another_training_begins_anew(tmp_path: Path) -> None:
    given, seen = subject(dense()), list[int]()
    tune(given, FIT, HELD_OUT, steps=40, folder=tmp_path)
    tune(given, FIT, HELD_OUT, steps=40, seed=1, folder=tmp_path, on_step=lambda step, *_: seen.append(step))
    assert seen[0] == 1
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    given = subject(dense())
    tune(given, FIT, HELD_OUT, steps=40, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=path.name):
        tune(given, FIT, HELD_OUT, steps=40, folder=tmp_path)


def test_time_is_a_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10_000))
    monkeypatch.setattr("time.monotonic", lambda: float(next(clock)))
    tuned = tune(subject(dense()), FIT, HELD_OUT, steps=1000, max_seconds=20)
    assert 10 <= tuned.report.steps <= 20


def test_steps_are_reported() -> None:
    seen: list[tuple[int, int]] = []
    tune(subject(dense()), FIT, HELD_OUT, steps=7, on_step=lambda step, steps, _: seen.append((step, steps)))
    assert seen == [(step, 7) for step in range(1, 8)]


def test_a_module_that_is_not_called_is_no_hidden_state() -> None:
    class Direct(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.inner = nn.Linear(16, 5)

        def forward(self, x: Tensor) -> Tensor:
            return functional.linear(x, self.inner.weight)

    tuned = tune(subject(Direct()), FIT, HELD_OUT, steps=30)
    assert tuned.report.steps == 30
