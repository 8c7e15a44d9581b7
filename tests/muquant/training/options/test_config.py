import json
from dataclasses import replace
from typing import Any

import pytest

from muquant.base.errors import InputError
from muquant.training import AdversarialOptions, QatOptions, TrainingConfig
from muquant.training.feedback import FeedbackConfig


def test_it_survives_json_unchanged() -> None:
    config = TrainingConfig(lr=1 / 3, epochs=7, augment="none", method="adversarial")
    config = replace(config, qat=QatOptions(overrides=(("conv1", 8), ("fc.*", 4)), mu=2.5))
    assert config.adversarial is not None
    assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    feedback = TrainingConfig(method="feedback")
    assert feedback.feedback == FeedbackConfig()
    feedback = replace(feedback, feedback=FeedbackConfig(rounds=2, start=0.0, cap=8.5))
    assert TrainingConfig.from_dict(json.loads(json.dumps(feedback.to_dict()))) == feedback


def test_a_group_of_options_that_is_missing_is_none() -> None:
    document = TrainingConfig(lr=0.5).to_dict()
    for group in ("adversarial", "feedback", "qat"):
        del document[group]
    assert TrainingConfig.from_dict(document) == TrainingConfig(lr=0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs"),
        ({"epochs": 1.5}, "epochs: expected int"),
        ({"epochs": True}, "epochs: expected int"),
        ({"batch_size": 0}, "batch_size"),
        ({"lr": 0}, "lr"),
        ({"lr": float("nan")}, "lr"),
        ({"lr": float("inf")}, "lr"),
        ({"lr": "0.1"}, "lr: expected float"),
        ({"weight_decay": -1}, "weight_decay"),
        ({"momentum": 1}, "momentum"),
        ({"warmup": 1.0}, "warmup"),
        ({"label_smoothing": 1}, "label_smoothing"),
        ({"seed": -1}, "seed"),
        ({"validation": 1.0}, "validation"),
        ({"data": None}, "data: expected str"),
        ({"method": "magic"}, "method 'magic' is unknown; expected one of standard, adversarial"),
        ({"keep": "first"}, "expected one of last, best"),
        ({"keep": "best", "validation": 0}, "keep: best is judged on held-out images"),
        ({"adversarial": AdversarialOptions()}, "options of adversarial training with method standard"),
        ({"feedback": FeedbackConfig()}, "options of feedback training with method standard"),
        ({"method": "feedback", "epochs": 2}, "3 rounds of feedback learning in 2 epochs"),
        ({"data": "digits", "method": "adversarial"}, "digits has no usual epsilon; give --epsilon"),
        ({"optimizer": "lion"}, "expected one of adamw, sgd"),
        ({"schedule": "step"}, "expected one of one-cycle, cosine, constant"),
        ({"augment": "mixup"}, "expected one of none, shift, flip-crop, flip-crop-cutout"),
        ({"precision": "fp8"}, "expected one of float32, bf16"),
    ],
)
def test_a_bad_option_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingConfig(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epsilon": 0}, "epsilon: expected at least"),
        ({"epsilon": 1.0}, "epsilon: expected at least"),
        ({"epsilon": "8/255"}, "epsilon: expected float or nothing"),
        ({"attack_steps": 0}, "attack_steps: expected at least 1"),
        ({"attack_steps": 2.0}, "attack_steps: expected int"),
        ({"attack_step_size": 0}, "attack_step_size: expected at least"),
        ({"epsilon_warmup": 1.1}, "epsilon_warmup: expected at least 0"),
        ({"trades": -1}, "trades: expected at least 0"),
        ({"awp": -0.1}, "awp: expected at least 0"),
        ({"attack": "fgsm"}, "attack.*fgsm.*n-fgsm"),
        ({"attack": "n-fgsm", "attack_steps": 2}, "attack_steps: expected 1 for n-fgsm"),
    ],
)
def test_a_bad_option_of_adversarial_training_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        AdversarialOptions(**changes)


@pytest.mark.parametrize(("data", "epsilon"), [("mnist", 0.3), ("cifar10", 8 / 255)])
def test_the_literatures_epsilon_and_steps_are_the_default(data: str, epsilon: float) -> None:
    many = TrainingConfig(data=data, method="adversarial").adversarial
    one = TrainingConfig(
        data=data, method="adversarial", adversarial=AdversarialOptions(attack_steps=1)
    ).adversarial
    assert many is not None
    assert one is not None
    assert many.epsilon == one.epsilon == epsilon
    assert many.attack_steps == 5
    assert many.attack_step_size == pytest.approx(2.5 * epsilon / 5)
    assert one.attack_step_size == pytest.approx(1.25 * epsilon)
    noisy = AdversarialOptions(attack="n-fgsm").complete(data, 1)
    assert noisy.attack_steps == 1
    assert noisy.attack_step_size == pytest.approx(epsilon)
    carried = AdversarialOptions(attack="atta").complete(data, 1)
    assert carried.attack_steps == 2
    assert carried.attack_step_size == pytest.approx(epsilon / 3)


def test_runs_from_before_there_were_several_attacks_are_read() -> None:
    options = TrainingConfig(method="adversarial")
    document = options.to_dict()
    for name in ("attack", "awp"):
        del document["adversarial"][name]
    del document["average_decay"]
    assert TrainingConfig.from_dict(document) == options


@pytest.mark.parametrize("document", [None, [], {}, TrainingConfig().to_dict() | {"surprise": 1}])
def test_a_foreign_document_is_refused(document: object) -> None:
    with pytest.raises(InputError, match="expected the fields"):
        TrainingConfig.from_dict(document)
