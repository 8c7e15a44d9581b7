"""Losses by hand, APGD against PGD, and what the base does when an attack or a model misbehaves."""

from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn

from muquant.attacks import (
    APGDCE,
    APGDT,
    BIM,
    DDN,
    PGD,
    Attack,
    BallAttack,
    CallableTarget,
    CarliniWagner,
    Norm,
    RandomSearch,
    Square,
    TorchTarget,
    Transfer,
)
from muquant.attacks.apgd import checkpoints
from muquant.attacks.losses import ce, dlr, margin, targeted_dlr
from muquant.attacks.problem import AttackProblem

Data = tuple[Tensor, Tensor]


def test_losses_by_hand() -> None:
    logits = torch.tensor([[4.0, 1.0, 3.0, 0.0], [4.0, 1.0, 3.0, 0.0]])
    labels, targets = torch.tensor([0, 1]), torch.tensor([1, 2])
    torch.testing.assert_close(margin(logits, labels), torch.tensor([-1.0, 3.0]))
    torch.testing.assert_close(dlr(logits, labels), torch.tensor([-1 / 3, 1.0]))
    torch.testing.assert_close(targeted_dlr(logits, labels, targets), torch.tensor([-3.0, 2.0]) / 3.5)
    torch.testing.assert_close(targeted_dlr(logits[:, :3], labels, targets), torch.tensor([-3.0, 2.0]) / 3)
    torch.testing.assert_close(targeted_dlr(logits[:1, :2], labels[:1], targets[:1]), torch.tensor([-3.0]))
    torch.testing.assert_close(dlr(logits[:, :2], labels), margin(logits[:, :2], labels))
    total = torch.tensor([4.0, 1.0, 3.0, 0.0]).exp().sum().log()
    torch.testing.assert_close(ce(logits, labels), total - torch.tensor([4.0, 1.0]))


def test_checkpoints_of_the_paper() -> None:
    """Section 3.2 and the published implementation, for 100 iterations."""
    assert checkpoints(100) == [22, 41, 57, 70, 80, 87, 93, 99]


@pytest.mark.parametrize(("norm", "epsilon"), [("linf", 0.09), ("linf", 0.1), ("l2", 0.6), ("l2", 0.7)])
@pytest.mark.parametrize("kind", [APGDCE, APGDT])
def test_apgd_is_at_least_as_strong_as_pgd(
    kind: type[APGDCE] | type[APGDT], norm: Norm, epsilon: float, net: nn.Module, data: Data
) -> None:
    target = TorchTarget(net)
    weaker = PGD(epsilon=epsilon, norm=norm, steps=40).attack(target, *data)
    stronger = kind(epsilon=epsilon, norm=norm, steps=40).attack(target, *data)
    assert 0 < weaker.accuracy < 1, "the setting separates nothing"
    assert stronger.accuracy <= weaker.accuracy


def test_diversified_starts_differ_in_their_outputs_more_than_random_ones(net: nn.Module, data: Data) -> None:
    """What Tashiro et al. made them for, measured at the first points that an ascent shows to the model."""

    class Watched(TorchTarget):
        def logits(self, inputs: Tensor) -> Tensor:
            output = super().logits(inputs)
            seen.append(output.detach())
            return output

    spread = {}
    for diversified in (0, 2):
        starts = []
        for seed in range(8):
            seen: list[Tensor] = []
            attack = APGDCE(epsilon=0.03, steps=1, diversified=diversified)
            attack.attack(Watched(net), *data, seed=seed)
            starts.append(seen[max(diversified, 1)])  # after the pass over the clean images
        spread[diversified] = torch.stack(starts).std(0).mean()
    assert spread[2] > 3 * spread[0]


def test_margin_loss_sees_through_large_logits(net: nn.Module, data: Data) -> None:
    class Scaled(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            output: Tensor = 1000 * net(inputs)
            return output

    accuracy = {
        loss: PGD(epsilon=0.12, loss=loss).attack(TorchTarget(Scaled()), *data).accuracy
        for loss in ("ce", "margin", "dlr")
    }
    honest = PGD(epsilon=0.12, loss="margin").attack(TorchTarget(net), *data).accuracy
    assert accuracy["margin"] == honest
    assert accuracy["ce"] > accuracy["dlr"] + 0.1


def test_square_and_random_search_are_ordered_by_strength(net: nn.Module, data: Data) -> None:
    target = TorchTarget(net)
    searched = RandomSearch(epsilon=0.13, samples=300).attack(target, *data).accuracy
    square = Square(epsilon=0.13, queries=300).attack(target, *data).accuracy
    gradient = APGDT(epsilon=0.13).attack(target, *data).accuracy
    assert gradient <= square < searched


def test_ddn_and_cw_agree_on_the_smallest_distance(net: nn.Module, data: Data) -> None:
    images, labels = data[0][:20], data[1][:20]
    ddn = DDN(steps=200).attack(TorchTarget(net), images, labels)
    cw = CarliniWagner(steps=300, lr=0.05).attack(TorchTarget(net), images, labels)
    assert ddn.success.all()
    assert cw.success.all()
    torch.testing.assert_close(ddn.l2.median(), cw.l2.median(), rtol=0.05, atol=0)


def test_confidence_is_reached(net: nn.Module, data: Data) -> None:
    attack = CarliniWagner(steps=100, lr=0.05, c=1.0, kappa=2.0)
    result = attack.attack(TorchTarget(net), *data)
    with torch.no_grad():
        reached = margin(net(result.adversarial), data[1])[result.success]
    assert len(reached) > 30
    assert reached.min() >= 2 - 1e-4


def test_transfer_from_the_target_itself_equals_the_attack(net: nn.Module, data: Data) -> None:
    target, method = TorchTarget(net), BIM(epsilon=0.12, stop_early=False)
    direct = method.attack(target, *data)
    transferred = Transfer(surrogate=target, method=method).attack(target, *data)
    torch.testing.assert_close(transferred.adversarial, direct.adversarial, rtol=0, atol=1e-6)


def test_transfer_of_the_closest_images_shows_just_these(net: nn.Module, data: Data) -> None:
    target, method = TorchTarget(net), CarliniWagner(steps=50, lr=0.1)
    direct = method.attack(target, *data)
    transferred = Transfer(surrogate=target, method=method).attack(target, *data)
    assert direct.success.any()
    torch.testing.assert_close(transferred.success, direct.success)
    torch.testing.assert_close(transferred.adversarial, direct.adversarial, rtol=0, atol=2e-3)


@dataclass(frozen=True, kw_only=True)
class Cheat(BallAttack):
    """Shows images outside the ball and the bounds, then one that is not finite."""

    needs_gradients: ClassVar[bool] = False

    def run(self, problem: AttackProblem) -> None:
        for inputs in (problem.clean + 0.2, problem.clean - 5, problem.clean * torch.nan, 1 - problem.clean):
            problem.logits(inputs, problem.rows())


def test_images_outside_the_threat_are_no_success() -> None:
    def function(array: object) -> Tensor:
        inputs = torch.as_tensor(array).flatten(1)
        return torch.stack([-(inputs - 0.5).abs().sum(1).nan_to_num(99), torch.full((len(inputs),), -0.1)], 1)

    images, labels = torch.full((4, 1, 2, 2), 0.5), torch.zeros(4, dtype=torch.int64)
    target = CallableTarget(function)
    assert not Cheat(epsilon=0.1).attack(target, images, labels).success.any()
    found = Cheat(epsilon=0.3).attack(target, images, labels)
    assert found.success.all()
    torch.testing.assert_close(found.linf, torch.full((4,), 0.2))


@pytest.mark.parametrize("attack", [DDN(), Square(epsilon=0.1, queries=20)], ids=["ddn", "square"])
def test_example_that_does_not_stand_is_no_success(attack: Attack) -> None:
    """A model that is fooled by every image it has not seen twice: nothing survives the verification."""

    class Forgetful(nn.Module):
        calls = 0

        def forward(self, inputs: Tensor) -> Tensor:
            self.calls += 1
            sign = 1.0 if self.calls == 1 or self.calls > limit else -1.0
            score = sign * (1 + 0 * inputs.flatten(1).sum(1))
            return torch.stack([score, -score], dim=1)

    limit = 10**9
    probe = Forgetful()
    images, labels = torch.full((3, 1, 2, 2), 0.5), torch.zeros(3, dtype=torch.int64)
    assert attack.attack(TorchTarget(probe), images, labels).success.all()
    limit = probe.calls - 1
    result = attack.attack(TorchTarget(Forgetful()), images, labels)
    assert not result.success.any()
    assert torch.equal(result.adversarial, images)
    assert result.l2.tolist() == [0, 0, 0]
