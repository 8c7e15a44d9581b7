"""A linear model, whose smallest perturbation has a closed form: |w x + b| / ||w|| in the dual norm."""

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from muquant.attacks import (
    APGDCE,
    APGDT,
    BIM,
    DDN,
    FABT,
    FGSM,
    MIM,
    PGD,
    Attack,
    CallableTarget,
    CarliniWagner,
    HopSkipJump,
    Norm,
    RandomSearch,
    Square,
    TorchTarget,
)

if TYPE_CHECKING:
    from tests.muquant.attacks.conftest import Linear

Data = tuple[Tensor, Tensor]


@pytest.mark.parametrize(
    "attack",
    [DDN(), DDN(steps=300), CarliniWagner(), HopSkipJump(iterations=15)],
    ids=["ddn-100", "ddn-300", "cw", "hop-skip-jump"],
)
def test_minimal_attack_finds_the_closed_form_l2_distance(
    attack: Attack, linear: "Linear", grey: Data
) -> None:
    result = attack.attack(TorchTarget(linear), *grey)
    assert result.success.all()
    ratio = result.l2 / linear.distance(grey[0], "l2")
    assert ratio.min() >= 1 - 1e-3
    assert ratio.max() <= 1.02


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_fab_steps_onto_the_boundary_at_the_closed_form_distance(
    norm: Norm, linear: "Linear", grey: Data
) -> None:
    """A linear model is just what its steps take a model for: the first one is the smallest, 5 % too long."""
    result = FABT(epsilon=4.0 if norm == "l2" else 1.0, norm=norm, steps=1).attack(TorchTarget(linear), *grey)
    assert result.success.all()
    found = result.linf if norm == "linf" else result.l2
    torch.testing.assert_close(found, 1.05 * linear.distance(grey[0], norm), rtol=1e-3, atol=0)


def test_hop_skip_jump_comes_close_to_the_closed_form_linf_distance(linear: "Linear", grey: Data) -> None:
    result = HopSkipJump(norm="linf", iterations=20).attack(TorchTarget(linear), *grey)
    ratio = result.linf / linear.distance(grey[0], "linf")
    assert result.success.all()
    assert ratio.min() >= 1 - 1e-3
    assert ratio.max() <= 1.2


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("kind", [FGSM, BIM, MIM, PGD, APGDCE, APGDT, FABT], ids=lambda kind: kind.__name__)
def test_gradient_attack_succeeds_above_the_distance_and_never_below(
    kind: Callable[..., Attack], norm: Norm, linear: "Linear", grey: Data
) -> None:
    target = TorchTarget(linear)
    slow = (kind is PGD and norm == "l2") or kind is FABT  # from a random point it nears the pole slowly
    factor = 1.02 if slow else 1.001
    for image, label, distance in zip(*grey, linear.distance(grey[0], norm).tolist(), strict=True):
        above = kind(epsilon=distance * factor + 1e-6, norm=norm)
        below = kind(epsilon=max(distance * 0.999 - 2e-6, 0.0), norm=norm)
        assert above.attack(target, image[None], label[None]).success.all()
        assert not below.attack(target, image[None], label[None]).success.any()


def test_fgsm_step_is_exact(linear: "Linear", grey: Data) -> None:
    result = FGSM(epsilon=0.25).attack(TorchTarget(linear), *grey)
    assert result.success.all()
    direction = torch.where(grey[1] == 0, 1.0, -1.0)[:, None] * linear.weight.sign()
    expected = grey[0] + 0.25 * direction.reshape(-1, 1, 4, 4)
    torch.testing.assert_close(result.adversarial, expected, rtol=0, atol=1e-7)


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize(
    ("kind", "factor"),
    [(Square, 1.5), (partial(HopSkipJump, iterations=8), 1.3), (RandomSearch, 12.0)],
    ids=["square", "hop-skip-jump", "random-search"],
)
def test_gradient_free_attack_succeeds_above_the_distance_and_never_below(
    kind: Callable[..., Attack], factor: float, norm: Norm, linear: "Linear", grey: Data
) -> None:
    target = CallableTarget(lambda array: linear(torch.from_numpy(array)).numpy())
    grey = grey[0][:4], grey[1][:4]
    for image, label, distance in zip(*grey, linear.distance(grey[0], norm).tolist(), strict=True):
        above = kind(epsilon=distance * factor + 0.01, norm=norm)
        below = kind(epsilon=max(distance * 0.999 - 2e-6, 0.0), norm=norm)
        assert above.attack(target, image[None], label[None]).success.all()
        assert not below.attack(target, image[None], label[None]).success.any()
