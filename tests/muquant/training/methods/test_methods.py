from dataclasses import fields

from muquant.training import METHODS, TrainingConfig
from muquant.training.options.config import METHOD_OPTIONS


def test_every_method_can_be_asked_for() -> None:
    assert list(METHODS) == list(METHOD_OPTIONS)


def test_the_options_of_a_method_have_a_field_of_its_name() -> None:
    groups = {name for name, kind in METHOD_OPTIONS.items() if kind is not None}
    assert groups <= {field.name for field in fields(TrainingConfig)}
    assert {name for name in METHOD_OPTIONS if getattr(TrainingConfig(method=name), name, None)} == groups
