import json
from typing import Any

import pytest

from muquant.errors import InputError
from muquant.training import TrainingConfig


def test_it_survives_json_unchanged() -> None:
    config = TrainingConfig(lr=1 / 3, epochs=7, augment="none")
    assert TrainingConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


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
        ({"method": "magic"}, "method 'magic' is unknown; expected one of standard"),
        ({"optimizer": "lion"}, "expected one of adamw, sgd"),
        ({"schedule": "step"}, "expected one of one-cycle, cosine, constant"),
        ({"augment": "mixup"}, "expected one of none, shift, flip-crop"),
        ({"precision": "fp8"}, "expected one of float32, bf16"),
    ],
)
def test_a_bad_option_is_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        TrainingConfig(**changes)


@pytest.mark.parametrize("document", [None, [], {}, TrainingConfig().to_dict() | {"surprise": 1}])
def test_a_foreign_document_is_refused(document: object) -> None:
    with pytest.raises(InputError, match="expected the fields"):
        TrainingConfig.from_dict(document)


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "meta", ""])
def test_a_device_that_is_not_here_is_refused(device: str) -> None:
    with pytest.raises(InputError, match="expected auto, cpu or one of"):
        TrainingConfig(device=device).torch_device()
