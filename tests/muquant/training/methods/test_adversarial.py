"""Adversarial training: the attack against closed forms, the losses against formulas, the stop of a run."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from muquant.base.errors import InputError
from muquant.data import load_dataset
from muquant.models import build_model
from muquant.training import (
    AdversarialOptions,
    Batch,
    EpochMetrics,
    QatOptions,
    Standard,
    TrainingConfig,
    train,
)
from muquant.training.methods.adversarial import Adversarial
from muquant.training.options.adversarial import Strength
from muquant.training.perturbations import cross_entropy_rise, divergence_rise, n_fgsm, pgd

from ..conftest import plug_in

Tiny = Callable[..., TrainingConfig]
OPTIONS = AdversarialOptions(epsilon=0.1, attack_steps=3, epsilon_warmup=0.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def batch_of(model: nn.Module, progress: float = 0.5) -> Batch:
    dataset = load_dataset("tiny", "train")
    labels = dataset.labels[:30]
    return Batch(model.train(), dataset.inputs()[:30], labels, labels, progress, seeded(1))


def fresh(model: nn.Module) -> dict[str, Tensor]:
    """The buffers of a model that has seen nothing yet."""
    return {name: each.clone() for name, each in model.named_buffers()}


@pytest.mark.parametrize("steps", [1, 4])
def test_the_attack_on_a_linear_model_reaches_the_worst_corner(steps: int) -> None:
    weight = torch.randn(2, 12, generator=seeded())
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False))
    model[1].weight.data = weight
    clean, labels = torch.rand(20, 3, 2, 2, generator=seeded(1)), torch.arange(20) % 2
    found = pgd(model, clean, cross_entropy_rise(labels), Strength(0.2, steps, 2.5 * 0.2 / steps), seeded())
    away = np.sign((weight[1] - weight[0]).numpy()) * np.where(labels.numpy() == 0, 1, -1)[:, None]
    expected = np.clip(clean.flatten(1).numpy() + 0.2 * away, 0, 1)
    np.testing.assert_allclose(found.flatten(1).numpy(), expected, atol=1e-6)


def test_attacked_images_stay_in_the_ball_and_in_the_range() -> None:
    model = build_model("cnn4-small", (1, 8, 8), 3)
    clean = torch.rand(50, 1, 8, 8, generator=seeded()).round(decimals=1)  # some exactly 0 and 1
    labels = torch.zeros(50, dtype=torch.int64)
    rise, strength = cross_entropy_rise(labels), Strength(0.3, 3, 0.25)
    found = pgd(model, clean, rise, strength, seeded(2))
    assert float((found - clean).abs().max()) <= 0.3 + 1e-6
    assert 0 <= float(found.min()) <= float(found.max()) <= 1
    assert not found.requires_grad
    assert not torch.equal(
        found, pgd(model, clean, cross_entropy_rise(labels), Strength(0.3, 3, 0.25), seeded())
    )


def test_an_attack_that_is_carried_goes_on_from_where_it_ended(tiny: Tiny) -> None:
    """Against the steps of both epochs taken at once from the same start."""
    model = build_model("cnn4-small", (1, 8, 8), 3)
    options = AdversarialOptions(epsilon=0.1, attack="atta", epsilon_warmup=0.0)
    method = Adversarial(tiny(method="adversarial", adversarial=options))
    start = 2 * torch.rand(30, 1, 8, 8, generator=seeded()) - 1
    first = replace(batch_of(model), carried=start)
    carried = method.loss(first).carried
    assert carried is not None
    assert float(carried.abs().max()) <= 1 + 1e-6
    assert not torch.equal(carried, start)
    second = method.loss(replace(first, carried=carried)).carried
    assert second is not None
    images = (first.inputs + 0.1 * start).clamp(0, 1)
    at_once = pgd(
        model, first.inputs, cross_entropy_rise(first.labels), Strength(0.1, 4, 0.1 / 3), seeded(), images
    )
    torch.testing.assert_close(first.inputs + 0.1 * second, at_once, rtol=0, atol=1e-6)


def test_what_no_attack_has_moved_is_carried_as_it_is(tiny: Tiny) -> None:
    options = AdversarialOptions(epsilon=0.1, attack="atta", epsilon_warmup=0.5)
    method = Adversarial(tiny(method="adversarial", adversarial=options))
    start = torch.full((30, 1, 8, 8), 0.5)
    batch = replace(batch_of(build_model("cnn4-small", (1, 8, 8), 3), progress=0.0), carried=start)
    found = method.loss(batch).carried
    assert found is not None
    assert torch.equal(found, start)


def test_noise_beyond_the_ball_takes_one_step_and_is_not_projected() -> None:
    weight = torch.randn(2, 12, generator=seeded())
    model = nn.Sequential(nn.Flatten(), nn.Linear(12, 2, bias=False))
    model[1].weight.data = weight
    clean, labels = torch.full((40, 3, 2, 2), 0.5), torch.arange(40) % 2
    found = n_fgsm(model, clean, cross_entropy_rise(labels), Strength(0.1, 1, 0.1), seeded())
    away = np.sign((weight[1] - weight[0]).numpy()) * np.where(labels.numpy() == 0, 1, -1)[:, None]
    noise = (found - clean).flatten(1).numpy() - 0.1 * away
    assert 0.19 < np.abs(noise).max() <= 0.2 + 1e-6
    assert abs(noise.mean()) < 0.02
    assert noise.std() == pytest.approx(0.2 / 3**0.5, rel=0.1)
    bright = n_fgsm(
        model, torch.ones_like(clean), cross_entropy_rise(labels), Strength(0.1, 1, 0.1), seeded()
    )
    assert float(bright.max()) == 1
    assert not found.requires_grad


def test_worse_weights_are_those_along_the_gradient(tiny: Tiny) -> None:
    """Against weights that are moved by hand."""
    model = build_model("wrn-10-1", (1, 8, 8), 3)
    batch, size = batch_of(model), 0.01
    method = Adversarial(tiny(method="adversarial", adversarial=replace(OPTIONS, awp=size)))
    found = method.loss(batch)
    found.loss.backward()  # type: ignore[no-untyped-call]
    gradients = {name: each.grad for name, each in model.named_parameters()}
    assert int(model.get_buffer("bn.num_batches_tracked")) == 1

    twin = build_model("wrn-10-1", (1, 8, 8), 3)
    twin.load_state_dict({**model.state_dict(), **fresh(twin)})
    attacked = pgd(
        twin.eval(), batch.inputs, cross_entropy_rise(batch.labels), method._options.strength(0.5), seeded(1)
    )
    twin.train()
    loss = nn.functional.cross_entropy(twin(attacked), batch.labels)
    for parameter, gradient in zip(
        twin.parameters(), torch.autograd.grad(loss, list(twin.parameters())), strict=True
    ):
        if parameter.dim() > 1:
            parameter.data += size * parameter.data.norm() / gradient.norm() * gradient
    worse = nn.functional.cross_entropy(twin(attacked), batch.labels)
    assert worse.item() > loss.item()
    assert found.loss.item() == pytest.approx(worse.item(), rel=1e-4)
    expected = torch.autograd.grad(worse, list(twin.parameters()))
    torch.testing.assert_close(tuple(gradients.values()), expected, rtol=1e-2, atol=1e-4)


def test_weights_are_as_they_are_while_epsilon_rises(tiny: Tiny) -> None:
    options = replace(OPTIONS, epsilon_warmup=0.6)
    losses = []
    for awp in (0.0, 0.05):
        torch.manual_seed(0)
        model = build_model("wrn-10-1", (1, 8, 8), 3)
        method = Adversarial(tiny(method="adversarial", adversarial=replace(options, awp=awp)))
        losses.append([method.loss(batch_of(model, progress)).loss.item() for progress in (0.5, 0.7)])
    assert losses[0][0] == losses[1][0]
    assert losses[0][1] < losses[1][1]


@pytest.mark.parametrize("trades", [0.0, 2.0])
def test_the_attack_leaves_no_gradients_and_no_statistics_behind(trades: float, tiny: Tiny) -> None:
    method = Adversarial(tiny(method="adversarial", adversarial=replace(OPTIONS, trades=trades)))
    model = build_model("wrn-10-1", (1, 8, 8), 3)
    seen: list[bool] = []
    hook = model.register_forward_hook(lambda module, *_: seen.append(module.training))
    result = method.loss(batch_of(model))
    hook.remove()
    assert all(parameter.grad is None for parameter in model.parameters())
    passes = 2 if trades else 1
    assert seen == [False] * (len(seen) - passes) + [True] * passes
    assert int(model.get_buffer("bn.num_batches_tracked")) == passes
    assert all(module.training for module in model.modules())
    result.loss.backward()  # type: ignore[no-untyped-call]
    assert all(parameter.grad is not None for parameter in model.parameters())


def softmax(logits: Tensor) -> np.ndarray[tuple[int, int], np.dtype[np.float64]]:
    power = np.exp(logits.detach().double().numpy())
    return power / power.sum(1, keepdims=True)  # type: ignore[no-any-return]


def test_the_losses_are_those_of_the_papers(tiny: Tiny) -> None:
    model = build_model("cnn4-small", (1, 8, 8), 3)
    model.get_parameter("fc2.weight").data *= 20  # so that an attack can change something
    labels = batch_of(model).labels.numpy()
    passes: list[Tensor] = []
    model.register_forward_hook(lambda module, _, out: passes.append(out) if module.training else None)

    result = Adversarial(tiny(method="adversarial", adversarial=OPTIONS)).loss(batch_of(model))
    (attacked,) = map(softmax, passes)
    expected = -np.log(attacked[np.arange(30), labels]).mean()
    assert result.loss.item() == pytest.approx(expected, rel=1e-5)
    assert result.logits is passes[0]

    passes.clear()
    options = replace(OPTIONS, trades=3.0)
    result = Adversarial(tiny(method="adversarial", adversarial=options)).loss(batch_of(model))
    clean, attacked = map(softmax, passes)
    divergence = (clean * np.log(clean / attacked)).sum(1).mean()
    expected = -np.log(clean[np.arange(30), labels]).mean() + 3.0 * divergence
    assert divergence > 1e-3
    assert result.loss.item() == pytest.approx(expected, rel=1e-5)
    assert result.logits is passes[1]


@pytest.mark.parametrize(
    ("progress", "expected"),
    [
        (0.0, (0.0, 1, 0.0)),
        (0.1, (0.1, 2, 0.125)),
        (0.15, (0.15, 2, 0.1875)),
        (0.2, (0.2, 3, 1 / 6)),
        (0.3, (0.3, 4, 0.1875)),
        (0.99, (0.3, 4, 0.1875)),
    ],
)
def test_epsilon_and_steps_rise_together(progress: float, expected: tuple[float, int, float]) -> None:
    found = (
        AdversarialOptions(epsilon=0.3, attack_steps=4, epsilon_warmup=0.3)
        .complete("x", epochs=1)
        .strength(progress)
    )
    assert (found.epsilon, found.steps, found.step_size) == pytest.approx(expected)


def test_without_warmup_the_attack_is_whole_from_the_start() -> None:
    found = (
        AdversarialOptions(epsilon=0.3, attack_steps=4, epsilon_warmup=0.0)
        .complete("x", epochs=1)
        .strength(0.0)
    )
    assert found == Strength(0.3, 4, 2.5 * 0.3 / 4)


def record(epoch: int, trained: float | None, judged: float | None) -> EpochMetrics:
    return EpochMetrics(epoch, 0.1, 0.9, 0.9, 0.1, 1.0, judged, trained)


@pytest.mark.parametrize(
    ("found", "stops"),
    [
        (record(9, 0.95, 0.02), True),
        (record(9, 0.95, 0.47), True),
        (record(9, 0.95, 0.48), False),
        (record(9, 0.0, 0.0), False),  # not learned at all: that is no overfitting
        (record(9, 0.3, 0.11), False),
        (record(2, 0.95, 0.02), False),  # epsilon is still rising
        (record(3, 0.95, 0.02), True),
        (record(9, None, 0.02), False),
    ],
)
@pytest.mark.parametrize("steps", [1, 3])
def test_overfitting_to_the_attack_is_found(found: EpochMetrics, stops: bool, steps: int, tiny: Tiny) -> None:
    options = AdversarialOptions(epsilon=0.1, attack_steps=steps, epsilon_warmup=0.3)
    method = Adversarial(tiny(method="adversarial", adversarial=options, epochs=10))
    fault = method.fault(found)
    assert (fault is not None) == stops
    assert fault is None or f"catastrophic overfitting, {found.trained_attack_accuracy:.1%}" in fault


def test_a_fault_stops_the_run_and_keeps_the_checkpoint_before_it(
    tiny: Tiny, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Faulty(Standard):
        def fault(self, record: EpochMetrics) -> str | None:
            return "it broke; mend it" if record.epoch == 2 else None

    plug_in(monkeypatch, "faulty", Faulty)
    with pytest.raises(InputError, match=r"step 12 of 18 \(epoch 2\): it broke; mend it \(the last good"):
        train(tiny(method="faulty"), tmp_path)
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 1
    assert not (tmp_path / "model.safetensors").exists()


@pytest.fixture(scope="module")
def digits() -> TrainingConfig:
    return TrainingConfig(
        data="digits", model="cnn4-small", epochs=6, batch_size=32, lr=5e-3, augment="none", device="cpu"
    )


@pytest.fixture(scope="module")
def plain(digits: TrainingConfig, tmp_path_factory: pytest.TempPathFactory) -> nn.Module:
    return train(digits, tmp_path_factory.mktemp("plain")).model


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [{"attack_steps": 3}, {"attack_steps": 1}, {"trades": 6.0}, {"attack": "atta", "trades": 2.0}],
    ids=str,
)
def test_training_makes_a_model_robust(
    options: dict[str, Any], digits: TrainingConfig, plain: nn.Module, tmp_path: Path
) -> None:
    attack = AdversarialOptions(epsilon=0.15, **options)
    config = replace(digits, method="adversarial", adversarial=attack)
    result = train(config, tmp_path)
    judge = Adversarial(replace(config, adversarial=AdversarialOptions(epsilon=0.15)))
    held_out = load_dataset("digits", "train")
    before, after = (judge.validate(model, held_out)["robust_accuracy"] for model in (plain, result.model))
    assert after > before + 0.2
    for each in result.history:
        assert each.robust_accuracy is not None
        assert each.trained_attack_accuracy is not None


def test_a_teacher_stands_in_for_the_labels(tiny: Tiny) -> None:
    student, teacher = (build_model("cnn4-small", (1, 8, 8), 3) for _ in range(2))
    batch = batch_of(student)
    wrong = replace(batch, labels=(batch.labels + 1) % 3, targets=(batch.targets + 1) % 3)
    method = Adversarial(tiny(method="adversarial", adversarial=OPTIONS), teacher.eval())
    found = method.loss(batch).loss.detach()
    torch.testing.assert_close(method.loss(replace(wrong, generator=seeded(1))).loss.detach(), found)
    with torch.no_grad():
        taught = functional.softmax(teacher(batch.inputs), 1).numpy()
        attacked = pgd(
            student.eval(),
            batch.inputs,
            divergence_rise(teacher(batch.inputs)),
            Strength(0.1, 3, 2.5 * 0.1 / 3),
            seeded(1),
        )
        answers = [functional.log_softmax(student(each), 1).numpy() for each in (batch.inputs, attacked)]
    apart = [(taught * (np.log(taught) - answer)).sum(1).mean() for answer in answers]
    assert apart[1] > apart[0]
    assert float(found) == pytest.approx(apart[0] / 6 + 5 * apart[1] / 6, rel=1e-5)


@pytest.mark.slow
def test_a_student_becomes_as_robust_as_its_teacher(digits: TrainingConfig, tmp_path: Path) -> None:
    config = replace(
        digits, method="adversarial", adversarial=AdversarialOptions(epsilon=0.15, attack_steps=3)
    )
    teacher = train(config, tmp_path / "teacher").model
    before = {name: each.clone() for name, each in teacher.state_dict().items()}
    student = train(replace(config, qat=QatOptions()), tmp_path / "student", teacher=teacher)
    assert all(torch.equal(each, before[name]) for name, each in teacher.state_dict().items())
    judge = Adversarial(config)
    images = load_dataset("digits", "train")
    wanted, found = (judge.validate(each, images)["robust_accuracy"] for each in (teacher, student.model))
    assert found > wanted - 0.1
    with pytest.raises(InputError, match="teacher"):  # it is part of what a run is
        train(replace(config, qat=QatOptions()), tmp_path / "student", resume=True)


@pytest.mark.parametrize(
    ("changes", "teacher", "message"),
    [
        (
            {"method": "standard"},
            build_model("cnn4-small", (1, 8, 8), 3),
            "standard, which learns from labels",
        ),
        ({}, build_model("cnn4-small", (1, 8, 8), 4), r"logits \[1, 3\] of one image, found \[1, 4\]"),
        ({}, build_model("cnn4-small", (1, 12, 12), 3), r"does not take images \[1, 1, 8, 8\]"),
        ({"trades": 6.0}, build_model("cnn4-small", (1, 8, 8), 3), "a teacher and trades"),
    ],
    ids=["method", "classes", "images", "trades"],
)
def test_a_teacher_who_cannot_be_asked_is_named(
    changes: dict[str, Any], teacher: nn.Module, message: str, tiny: Tiny, tmp_path: Path
) -> None:
    trades = changes.pop("trades", 0.0)
    method = changes.get("method", "adversarial")
    options = replace(OPTIONS, trades=trades) if method == "adversarial" else None
    with pytest.raises(InputError, match=message):
        train(tiny(method=method, adversarial=options), tmp_path, teacher=teacher)
    assert not (tmp_path / "config.json").exists()
