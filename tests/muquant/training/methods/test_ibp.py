"""Certified training: its loss against formulas, its ramp, and what it leads to."""

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from muquant import InputError
from muquant.certification.operations import Range
from muquant.certification.trace import traced
from muquant.data import load_dataset
from muquant.models import build_model
from muquant.training import Batch, BatchLoss, OutOfTime, QatOptions, TrainingConfig, train
from muquant.training.methods.growth import growth_penalty
from muquant.training.methods.ibp import Ibp
from muquant.training.options.ibp import IbpOptions

Tiny = Callable[..., TrainingConfig]


def test_the_loss_of_a_linear_network_is_that_of_its_worst_corners(tiny: Tiny) -> None:
    dataset = load_dataset("tiny", "train")
    linear = nn.Linear(64, 3)
    model = nn.Sequential(nn.Flatten(), linear)
    inputs, labels = dataset.inputs()[:12].clamp(0.2, 0.8), dataset.labels[:12]
    batch = Batch(model, inputs, labels, labels, 0.99, torch.Generator())
    method = Ibp(tiny(method="ibp", ibp=IbpOptions(epsilon=0.1, clean=0.25)))
    weight, bias = linear.weight, linear.bias
    apart = weight[labels][:, None] - weight[None]  # [N, 3, 64]
    least = (apart * inputs.flatten(1)[:, None]).sum(2) + bias[labels][:, None] - bias
    least = least - 0.1 * apart.abs().sum(2)
    expected = 0.25 * functional.cross_entropy(model(inputs), labels)
    expected = expected + 0.75 * functional.cross_entropy(-least, labels)
    found = method.loss(batch)
    torch.testing.assert_close(found.loss, expected)
    torch.testing.assert_close(found.logits, -least)  # whose largest is the label's where all margins are > 0
    found.loss.backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None
    assert torch.isfinite(weight.grad).all()


def test_attacked_images_take_their_share_and_are_carried_on(tiny: Tiny) -> None:
    dataset = load_dataset("tiny", "train")
    model = build_model("cnn4-strided", (1, 8, 8), 3)
    inputs, labels = dataset.inputs()[:12].clamp(0.3, 0.7), dataset.labels[:12]
    carried = 2 * torch.rand(inputs.shape, generator=torch.Generator().manual_seed(1)) - 1
    batch = Batch(model, inputs, labels, labels, 0.99, torch.Generator(), carried)

    def found(attacked: float) -> BatchLoss:
        options = IbpOptions(epsilon=0.1, ramp=0.5, balance=0.0, attacked=attacked)
        return Ibp(tiny(method="ibp", ibp=options)).loss(batch)

    balls, whole, mixed = found(0.0), found(1.0), found(0.75)
    assert mixed.carried is not None
    assert balls.carried is carried
    moved = 0.1 * mixed.carried
    assert moved.abs().max() <= 0.1 + 1e-6
    attacked = functional.cross_entropy(model(inputs + moved), labels)
    torch.testing.assert_close(whole.loss, attacked)
    torch.testing.assert_close(mixed.loss, 0.75 * attacked + 0.25 * balls.loss)
    assert functional.cross_entropy(model(inputs + 0.1 * carried), labels) < attacked < balls.loss


@pytest.mark.parametrize("attacked", [0.0, 0.5])
def test_only_what_is_attacked_is_carried(tiny: Tiny, attacked: float) -> None:
    assert Ibp(tiny(method="ibp", ibp=IbpOptions(epsilon=0.1, attacked=attacked))).carries == (attacked > 0)


def test_at_first_it_is_the_loss_of_the_images(tiny: Tiny) -> None:
    dataset = load_dataset("tiny", "train")
    model = build_model("cnn4-small", (1, 8, 8), 3)
    labels = dataset.labels[:12]
    batch = Batch(model, dataset.inputs()[:12], labels, labels, 0.05, torch.Generator())
    method = Ibp(tiny(method="ibp", ibp=IbpOptions(epsilon=0.1, start=0.1)))
    expected = functional.cross_entropy(model(batch.inputs), batch.labels)
    torch.testing.assert_close(method.loss(batch).loss, expected)


@pytest.mark.parametrize("growth", [2.0, 8.0])
def test_while_epsilon_rises_intervals_that_grow_and_relus_that_lean_cost(growth: float) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3))
    layers = [each for each in model if isinstance(each, nn.Linear)]
    for each in layers:
        each.weight.data *= growth
    x, radius = torch.rand(5, 6, dtype=torch.float64), 0.05
    found = growth_penalty(traced(model.double(), Range(x - radius, x + radius)))
    costs, lower, upper = [], (x - radius).numpy(), (x + radius).numpy()
    for each in layers[:2]:
        weight, bias = each.weight.detach().numpy(), each.bias.detach().numpy()
        centre = (lower + upper) / 2 @ weight.T + bias
        reach = (upper - lower) / 2 @ np.abs(weight).T
        active, idle = centre - reach > 0, centre + reach < 0
        spread = (centre - centre.mean()) ** 2
        pairs = [(np.sum(centre[active]), -np.sum(centre[idle])), (spread[active].sum(), spread[idle].sum())]
        ratios = [radius / reach.mean(), *(min(pair) / max(pair) if max(pair) else 1.0 for pair in pairs)]
        costs.append(sum(max(0.0, 0.5 - ratio) / 0.5 for ratio in ratios))
        lower, upper = np.maximum(centre - reach, 0), np.maximum(centre + reach, 0)
    assert float(found.detach()) == pytest.approx(np.mean(costs), rel=1e-4)
    assert found > 0


def test_the_balance_is_paid_for_until_epsilon_has_risen(tiny: Tiny) -> None:
    dataset = load_dataset("tiny", "train")
    model, labels = build_model("cnn4-strided", (1, 8, 8), 3), dataset.labels[:12]

    def loss(progress: float, balance: float) -> float:
        batch = Batch(model, dataset.inputs()[:12], labels, labels, progress, torch.Generator())
        options = IbpOptions(epsilon=0.3, start=0.1, ramp=0.5, balance=balance)
        return float(Ibp(tiny(method="ibp", ibp=options)).loss(batch).loss.detach())

    without, half, whole = (loss(0.3, balance) for balance in (0.0, 0.5, 1.0))
    assert without < half < whole
    assert whole - half == pytest.approx(half - without, rel=1e-3)
    assert loss(0.7, 0.0) == loss(0.7, 1.0)


def test_epsilon_rises_smoothly_from_start_to_the_end_of_the_ramp() -> None:
    options = IbpOptions(epsilon=0.3, start=0.1, ramp=0.5)
    shares = [options.share(place / 1000) for place in range(1000)]
    assert shares[:101] == [0.0] * 101
    assert shares[600:] == [1.0] * 400
    steps = [after - before for before, after in pairwise(shares[100:601])]
    assert all(step > 0 for step in steps)
    assert max(abs(one - other) for one, other in pairwise(steps)) < 1e-4  # no kink
    assert shares[225] / shares[599] == pytest.approx(0.25**4 / (0.25**4 + 4 * 0.25**3 * 0.75), rel=0.01)


def test_weights_begin_so_that_radii_keep_their_size(tiny: Tiny) -> None:
    model = build_model("cnn4", (1, 28, 28), 10)
    Ibp(tiny(method="ibp", ibp=IbpOptions(epsilon=0.1))).initialize(model)
    weight = model.get_parameter("fc1.weight")
    assert weight.std().item() == pytest.approx(math.sqrt(2 * math.pi) / 3136, rel=0.01)
    assert not model.get_parameter("fc1.bias").any()


@pytest.mark.parametrize("qat", [None, QatOptions(start=0.5)], ids=["float", "3 bits"])
def test_it_learns_what_can_be_certified(tiny: Tiny, tmp_path: Path, qat: QatOptions | None) -> None:
    config = tiny(
        method="ibp",
        ibp=IbpOptions(epsilon=0.05, start=0.1),
        epochs=24,
        lr=5e-3,
        weight_decay=0.0,
        augment="none",
        qat=qat,
    )
    result = train(config, tmp_path / "run")
    assert result.test_accuracy > 0.9
    assert result.history[-1].robust_accuracy is not None
    assert result.history[-1].robust_accuracy > 0.6
    assert result.history[-1].trained_attack_accuracy is None


def test_what_is_attacked_as_well_is_validated_so(tiny: Tiny, tmp_path: Path) -> None:
    ibp = IbpOptions(epsilon=0.05, start=0.1, attacked=0.5)
    config = tiny(method="ibp", ibp=ibp, epochs=12, lr=5e-3, weight_decay=0.0, augment="none")
    last = train(config, tmp_path / "run").history[-1]
    assert last.robust_accuracy is not None
    assert last.trained_attack_accuracy is not None
    assert 0.3 < last.robust_accuracy <= last.trained_attack_accuracy


def test_training_that_attacks_is_resumed_where_it_stopped(tiny: Tiny, tmp_path: Path) -> None:
    config = tiny(method="ibp", ibp=IbpOptions(epsilon=0.05, attacked=0.5), epochs=3)
    whole = train(config, tmp_path / "whole").model.state_dict()
    with pytest.raises(OutOfTime):
        train(config, tmp_path / "cut", max_seconds=0.0)
    resumed = train(config, tmp_path / "cut", resume=True).model.state_dict()
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": 0.0}, "epsilon: expected at least"),
        ({"start": 0.7, "ramp": 0.5}, "at most 1 together"),
        ({"clean": 2.0}, "clean: expected"),
        (
            {"clean": 0.5, "attacked": 0.6},
            "clean and attacked: expected at most 1",
        ),
        ({"balance": -1.0}, "balance: expected"),
    ],
)
def test_bad_options_are_named(changes: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        IbpOptions(**changes)


def test_a_data_set_without_a_usual_epsilon_asks_for_one(tiny: Tiny) -> None:
    with pytest.raises(InputError, match="--ibp-epsilon"):
        tiny(method="ibp")
    assert replace(tiny(), data="mnist", method="ibp").ibp == IbpOptions(epsilon=0.3)


def test_certified_networks_get_levels_with_a_zero(tiny: Tiny) -> None:
    def levels(**changes: object) -> str | None:
        qat = tiny(**changes).qat
        assert qat is not None
        return qat.levels

    certified = {"method": "ibp", "ibp": IbpOptions(epsilon=0.1)}
    assert levels(qat=QatOptions(), **certified) == "mid-tread"
    assert levels(qat=QatOptions(levels="mid-rise"), **certified) == "mid-rise"
    assert levels(qat=QatOptions()) == "mid-rise"


def test_options_of_runs_from_before_there_were_some_are_read() -> None:
    before = {"epsilon": 0.3, "start": 0.02, "ramp": 0.4, "clean": 0.0}
    assert IbpOptions.from_dict(before) == IbpOptions(epsilon=0.3, balance=0.0)


def test_mixed_images_have_no_label_to_certify(tiny: Tiny) -> None:
    with pytest.raises(InputError, match="cutmix: certified training"):
        tiny(method="ibp", ibp=IbpOptions(epsilon=0.1), cutmix=1.0)
