"""Attacks that aim at a class, beside other libraries' and by definition; and models that abstain."""

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from torch import Tensor, nn

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
    Goal,
    RandomSearch,
    Square,
    TorchTarget,
    Transfer,
)
from muquant.attacks.losses import margin
from muquant.base.errors import InputError

Data = tuple[Tensor, Tensor]

ATTACKS: dict[str, Attack] = {
    "fgsm": FGSM(epsilon=0.2),
    "bim": BIM(epsilon=0.2),
    "pgd": PGD(epsilon=0.2, restarts=2),
    "pgd-margin": PGD(epsilon=0.2, loss="margin"),
    "pgd-dlr": PGD(epsilon=0.2, loss="dlr", norm="linf"),
    "mim": MIM(epsilon=0.2),
    "apgd-ce": APGDCE(epsilon=0.2, steps=30),
    "apgd-ce-l1": APGDCE(epsilon=8, norm="l1", steps=30),
    "apgd-t": APGDT(epsilon=0.2, steps=30),
    "fab-t": FABT(epsilon=1.2, norm="l2", steps=20),
    "ddn": DDN(),
    "cw": CarliniWagner(steps=200, lr=0.05, searches=4, c=0.1),
    "square": Square(epsilon=0.2, queries=300),
    "random-search": RandomSearch(epsilon=0.9),
}


def others(labels: Tensor) -> Tensor:
    """For each label of four another class; not always the next."""
    return (labels + 1 + torch.arange(len(labels)) % 3) % 4


@pytest.mark.parametrize("name", ATTACKS)
def test_success_is_the_class_aimed_at(name: str, net: nn.Module, data: Data) -> None:
    images, labels = data
    aimed = others(labels)
    result = ATTACKS[name].attack(TorchTarget(net), images, labels, target_classes=aimed)
    with torch.no_grad():
        seen = net(result.adversarial).argmax(1)
    torch.testing.assert_close(result.success, seen == aimed)
    assert torch.equal(seen[~result.success], labels[~result.success])
    least = 1 if name in ("random-search", "fgsm") else len(labels) // 2
    assert int(result.success.sum()) >= least
    torch.testing.assert_close(result.adversarial[~result.success], images[~result.success], rtol=0, atol=0)


def test_one_class_for_all(net: nn.Module, data: Data) -> None:
    images, labels = (part[data[1] != 2] for part in data)
    attack, target = PGD(epsilon=0.2), TorchTarget(net)
    one = attack.attack(target, images, labels, target_classes=2)
    each = attack.attack(target, images, labels, target_classes=np.full(len(labels), 2))
    assert torch.equal(one.adversarial, each.adversarial)
    assert bool(one.success.any())


def test_transfer_aims_too(net: nn.Module, data: Data) -> None:
    images, labels = data
    aimed = others(labels)
    surrogate = nn.Sequential(net, nn.Hardtanh(-30, 30))
    attack = Transfer(surrogate=TorchTarget(surrogate), method=PGD(epsilon=0.3))
    result = attack.attack(TorchTarget(net), images, labels, target_classes=aimed)
    with torch.no_grad():
        seen = net(result.adversarial).argmax(1)
    assert int(result.success.sum()) > len(labels) // 2
    torch.testing.assert_close(result.success, seen == aimed)


@pytest.mark.parametrize("name", ["fgsm", "pgd", "ddn"])
def test_equals_foolbox(name: str, net: nn.Module, data: Data) -> None:
    images, labels = data
    aimed = others(labels)
    attack: Any
    with warnings.catch_warnings():  # those of the libraries' own code are not ours to mend
        warnings.simplefilter("ignore")
        foolbox = pytest.importorskip("foolbox", reason="the oracle is not installed")
        if name == "fgsm":  # foolbox has no targeted FGSM: one step of its PGD is that
            attack = FGSM(epsilon=0.2, stop_early=False)
            theirs = foolbox.attacks.LinfPGD(rel_stepsize=1, steps=1, random_start=False)
        elif name == "pgd":
            attack = PGD(epsilon=0.12, steps=40, step_size=0.004, random_start=False, stop_early=False)
            theirs = foolbox.attacks.LinfPGD(rel_stepsize=1 / 30, steps=40, random_start=False)
        else:
            attack = DDN(steps=100)
            theirs = foolbox.attacks.DDNAttack(init_epsilon=1.0, steps=100, gamma=0.05)
        model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
        criterion = foolbox.criteria.TargetedMisclassification(aimed)
        epsilon = None if name == "ddn" else attack.epsilon
        _, clipped, success = theirs(model, images, criterion, epsilons=epsilon)
    result = attack.attack(TorchTarget(net), images, labels, target_classes=aimed)
    assert int(success.sum()) > 0
    torch.testing.assert_close(result.success, success)
    l2 = (clipped - images).flatten(1).norm(dim=1)[success]
    torch.testing.assert_close(
        result.l2[success].mean(), l2.mean(), rtol=0.02 if name == "ddn" else 1e-4, atol=0
    )


def test_carlini_wagner_is_as_near_as_foolbox(net: nn.Module, data: Data) -> None:
    images, labels = (part[:20] for part in data)
    aimed = others(labels)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        foolbox = pytest.importorskip("foolbox", reason="the oracle is not installed")
        theirs = foolbox.attacks.L2CarliniWagnerAttack(
            binary_search_steps=4, steps=100, stepsize=0.05, initial_const=0.1
        )
        model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
        criterion = foolbox.criteria.TargetedMisclassification(aimed)
        _, clipped, success = theirs(model, images, criterion, epsilons=None)
    attack = CarliniWagner(searches=4, steps=100, lr=0.05, c=0.1, abort_early=False)
    result = attack.attack(TorchTarget(net), images, labels, target_classes=aimed)
    assert bool(success.all())
    assert bool(result.success.all())
    l2 = (clipped - images).flatten(1).norm(dim=1)
    assert float(result.l2.mean()) <= 1.02 * float(l2.mean())


@pytest.mark.parametrize(
    ("aimed", "message"),
    [
        (lambda y: y, "target_classes: expected others than the labels, found the label in 60 of 60 images"),
        (lambda y: 4, "target_classes: expected 0 to 3, the model's classes, found 4"),
        (lambda y: -1, "target_classes: expected class numbers from 0, found -1"),
        (
            lambda y: (y + 1)[:7] % 4,
            r"target_classes: expected int64 \[60\], or one number, found int64 \[7\]",
        ),
        (
            lambda y: (y + 1) / 2,
            r"target_classes: expected int64 \[60\], or one number, found float32 \[60\]",
        ),
        (lambda y: "cat", "target_classes: expected .* found "),
        (lambda y: [[1], [2, 3]], "target_classes: expected a tensor or an array of numbers, found list"),
    ],
)
def test_class_is_refused(aimed: Callable[[Tensor], Any], message: str, net: nn.Module, data: Data) -> None:
    with pytest.raises(InputError, match=message) as caught:
        PGD(epsilon=0.1).attack(TorchTarget(net), *data, target_classes=aimed(data[1]))
    assert "\n" not in str(caught.value)


class Abstaining(nn.Module):
    """A net with one more output, which exceeds the others where the image is noisier than `most`."""

    def __init__(self, net: nn.Module, most: float) -> None:
        super().__init__()
        self.net, self.most = net, most

    def forward(self, inputs: Tensor) -> Tensor:
        logits = self.net(inputs)
        noise = (inputs[..., 1:] - inputs[..., :-1]).flatten(1).square().mean(1, keepdim=True)
        return torch.cat([logits, logits.mean(1, keepdim=True) + 1e4 * (noise - self.most)], dim=1)


def noise(images: Tensor) -> Tensor:
    return (images[..., 1:] - images[..., :-1]).flatten(1).square().mean(1)


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "random-search"])
def test_abstaining_is_neither_right_nor_fooled(name: str, net: nn.Module, data: Data) -> None:
    images, labels = data
    clean = noise(images)
    module = Abstaining(net, float(clean.sort().values[50]) * 1.2)  # room to move, but none for noise
    result = ATTACKS[name].attack(TorchTarget(module, abstains=True), images, labels)
    with torch.no_grad():
        before, after = module(images).argmax(1), module(result.adversarial).argmax(1)
    torch.testing.assert_close(result.attacked, before == labels)
    assert bool(((after[result.success] != labels[result.success]) & (after[result.success] != 4)).all())
    naive = ATTACKS[name].attack(TorchTarget(net), images, labels)
    assert int(result.success.sum()) <= int(naive.success.sum())


def test_abstaining_on_clean_images_is_not_right(net: nn.Module, data: Data) -> None:
    images, labels = data
    module = Abstaining(net, float(noise(images).median()))
    target = CallableTarget(lambda array: module(torch.from_numpy(array)).detach().numpy(), abstains=True)
    result = Square(epsilon=0.1, queries=20).attack(target, images, labels)
    seen = module(images).argmax(1)
    assert 20 < int((seen == 4).sum()) < 40
    torch.testing.assert_close(result.attacked, seen == labels)


def test_attacks_get_around_abstaining(net: nn.Module, data: Data) -> None:
    images, labels = data
    low = nn.AvgPool2d(2)  # a reject output on which smooth images have no say

    class Timid(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            logits = net(inputs)
            detail = (
                (inputs - nn.functional.interpolate(low(inputs), scale_factor=2)).abs().flatten(1).mean(1)
            )
            return torch.cat([logits, logits.amax(1, keepdim=True) - 1 + 15 * detail[:, None]], dim=1)

    module = Timid()
    target = TorchTarget(module, abstains=True)
    with torch.no_grad():
        blind = PGD(epsilon=0.25, stop_early=False).attack(TorchTarget(net), images, labels)
        escaped = module(blind.adversarial).argmax(1)
    result = PGD(epsilon=0.25, restarts=3, loss="margin").attack(target, images, labels)
    with torch.no_grad():
        clean, seen = module(images).argmax(1), module(result.adversarial).argmax(1)
    attacked = clean == labels
    torch.testing.assert_close(result.attacked, attacked)
    caught = attacked & (escaped == 4)
    assert int(caught.sum()) > 10, "the blind attack runs into the reject output"
    assert int(result.success[caught].sum()) > int(caught.sum()) // 2
    assert bool((seen[result.success] < 4).all())


@given(
    st.lists(st.lists(st.floats(-9, 9, width=32), min_size=5, max_size=5), min_size=1, max_size=6), st.data()
)
@settings(max_examples=100, deadline=None)
def test_the_rule_by_hand(rows: list[list[float]], draw: st.DataObject) -> None:
    count = len(rows)
    labels = draw.draw(st.lists(st.integers(0, 3), min_size=count, max_size=count))
    shifts = draw.draw(st.lists(st.integers(1, 3), min_size=count, max_size=count))
    aimed = [(label + shift) % 4 for label, shift in zip(labels, shifts, strict=True)]
    outputs = torch.tensor(rows) + torch.arange(5) * 1e-3  # no ties
    plain, goal = (
        Goal(torch.tensor(labels), None, True),
        Goal(torch.tensor(labels), torch.tensor(aimed), True),
    )
    seen = outputs.argmax(1).tolist()
    assert plain.right(outputs).tolist() == [a == b for a, b in zip(seen, labels, strict=True)]
    fooled = [a not in (b, 4) for a, b in zip(seen, labels, strict=True)]
    assert plain.fooled(outputs).tolist() == fooled
    assert goal.fooled(outputs).tolist() == [a == b for a, b in zip(seen, aimed, strict=True)]
    above = plain.objective(margin, plain.logits(outputs)) > 0
    assert above.tolist() == fooled


def test_too_few_outputs_to_abstain(linear: nn.Module, grey: Data) -> None:
    with pytest.raises(
        InputError, match=r"expected 2 classes or more, and the last output .* found 2 outputs"
    ):
        FGSM(epsilon=0.1).attack(TorchTarget(linear, abstains=True), *grey)
