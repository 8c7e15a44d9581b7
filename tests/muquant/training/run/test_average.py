"""The mean of weights, against sums over every step in numpy."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from muquant.base.errors import InputError
from muquant.models.evaluation import evaluate
from muquant.training import Batch, BatchLoss, QatOptions, TrainingConfig, train
from muquant.training.run.average import AveragedWeights
from muquant.training.run.data import load_run_data

from ..conftest import method_of, plug_in

pytestmark = pytest.mark.slow
Tiny = Callable[..., TrainingConfig]
STEPS = 6
"""Of an epoch of "tiny"."""


@pytest.fixture
def passed(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """The weights before each step of what is trained by the method "watched"."""
    found: list[dict[str, Tensor]] = []

    def loss(batch: Batch) -> BatchLoss:
        found.append({name: each.detach().clone() for name, each in batch.model.named_parameters()})
        logits = batch.model(batch.inputs)
        return BatchLoss(functional.cross_entropy(logits, batch.labels), logits)

    plug_in(monkeypatch, "watched", method_of(loss))
    return found


def mean_of(weights: list[dict[str, Tensor]]) -> dict[str, np.ndarray]:
    return {name: np.mean([each[name].double().numpy() for each in weights], axis=0) for name in weights[0]}


@pytest.mark.parametrize(("share", "counted"), [(0.5, 9), (1 / 3, 6), (0.001, 1), (0.999, 18)])
def test_the_last_steps_count_alike(
    share: float, counted: int, tiny: Tiny, passed: list[dict[str, Tensor]], tmp_path: Path
) -> None:
    settings = {"method": "watched", "optimizer": "sgd", "schedule": "constant", "warmup": 0.0}
    train(tiny(epochs=4, **settings), tmp_path / "longer")  # whose fourth epoch begins where the third ends
    after = passed[1 : 3 * STEPS + 1].copy()
    averaged = train(tiny(epochs=3, average=share, **settings), tmp_path / "averaged")
    for name, mean in mean_of(after[-counted:]).items():
        found = averaged.model.get_parameter(name).detach().numpy()
        np.testing.assert_allclose(found, mean, rtol=1e-5, atol=1e-6)


def test_averaging_does_not_change_the_steps(
    tiny: Tiny, passed: list[dict[str, Tensor]], tmp_path: Path
) -> None:
    for share in (None, 0.7):
        train(tiny(method="watched", model="wrn-10-1", epochs=2, average=share), tmp_path / str(share))
    plain = passed[: 2 * STEPS]
    averaged = [*passed[2 * STEPS : 3 * STEPS], *passed[4 * STEPS : 5 * STEPS]]  # estimated in between
    for before, beside in zip(plain, averaged, strict=True):
        assert all(torch.equal(before[name], beside[name]) for name in before)


def test_statistics_are_those_of_the_averaged_weights_on_what_training_saw(
    tiny: Tiny, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    seen: list[Tensor] = []

    def loss(batch: Batch) -> BatchLoss:
        seen.append(batch.inputs.clone() + torch.rand(batch.inputs.shape, generator=batch.generator))
        logits = batch.model(seen[-1])
        return BatchLoss(functional.cross_entropy(logits, batch.labels), logits)

    plug_in(monkeypatch, "noisy", method_of(loss))
    model = train(tiny(method="noisy", model="wrn-10-1", epochs=4, average=0.5), tmp_path / "run").model
    assert len(seen) == 4 * STEPS + 3 * STEPS + 20 + 20  # estimated after the last two epochs, and at the end
    trained = [*seen[: 3 * STEPS], *seen[6 * STEPS : 7 * STEPS]]
    last = seen[-20:]
    assert all(torch.equal(*pair) for pair in zip(last, trained[-20:], strict=True))
    found = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None
    model.train()
    with torch.no_grad():
        for inputs in last:
            model(inputs)
    for name, tensor in model.state_dict().items():
        assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-5), name


def test_the_model_has_its_own_weights_back() -> None:
    model = nn.Linear(2, 2)
    average = AveragedWeights(model, first=0, estimate_statistics=lambda step: None)
    for step, value in enumerate((1.0, 2.0, 6.0)):
        nn.init.constant_(model.weight, value)
        average.take(step)
    with average.in_place(2):
        assert model.weight.tolist() == [[3.0, 3.0]] * 2
    assert model.weight.tolist() == [[6.0, 6.0]] * 2


def test_an_exponential_average_begins_as_a_mean() -> None:
    model, decay = nn.Linear(1, 1), 0.7
    average = AveragedWeights(model, first=0, estimate_statistics=lambda step: None, decay=decay)
    values = [1.0, 2.0, 6.0, -3.0, 5.0, 4.0]
    for step, value in enumerate(values):
        nn.init.constant_(model.weight, value)
        average.take(step)
    expected = sum(values[:3]) / 3  # 1/3 is above 0.3 still
    for value in values[3:]:
        expected = decay * expected + (1 - decay) * value
    with average.in_place(5):
        assert float(model.weight.detach()) == pytest.approx(expected)


def test_the_model_has_its_own_weights_before_the_first_that_count() -> None:
    model = nn.Linear(2, 2)
    average = AveragedWeights(model, first=5, estimate_statistics=lambda step: None)
    nn.init.constant_(model.weight, 4.0)
    with average.in_place(4):
        assert model.weight.tolist() == [[4.0, 4.0]] * 2


def test_the_kept_epoch_is_the_one_that_was_judged(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(average=0.8, keep="best", epochs=4)
    result = train(config, tmp_path / "run")
    held_out = load_run_data(config).validation
    assert held_out is not None
    assert evaluate(result.model, held_out) == result.kept.validation_accuracy
    assert result.kept.validation_accuracy == max(
        record.validation_accuracy or 0.0 for record in result.history
    )


def test_weights_in_float_do_not_count_where_few_bits_are_trained_for(
    tiny: Tiny, passed: list[dict[str, Tensor]], tmp_path: Path
) -> None:
    settings = {"method": "watched", "schedule": "constant", "qat": QatOptions(start=0.5, rate=0.0)}
    result = train(tiny(average=0.9, epochs=2, **settings), tmp_path / "run")
    scales = [name for name in passed[0] if name.endswith("scale")]
    assert scales
    for name in scales:  # which learn nothing here, and are searched for at the beginning
        assert torch.allclose(result.model.get_parameter(name), passed[STEPS][name])


@pytest.mark.parametrize("share", [0.0, 1.0, -0.1])
def test_a_share_is_a_share(share: float, tiny: Tiny) -> None:
    with pytest.raises(InputError, match="average"):
        tiny(average=share)
