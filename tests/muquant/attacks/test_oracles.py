"""Other libraries' attacks on a fixed net, with deterministic settings."""

import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from muquant.attacks import BIM, FGSM, MIM, PGD, GradientAttack, Norm, TorchTarget

Data = tuple[Tensor, Tensor]

EPSILON = {"linf": 0.12, "l2": 0.8}


@pytest.fixture
def foreign_warnings() -> Iterator[None]:
    """Those that the libraries' own code raises on import and in use are not ours to mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def compare(attack: GradientAttack, net: nn.Module, data: Data, theirs: Tensor) -> None:
    images, labels = data
    result = attack.attack(TorchTarget(net), images, labels)
    with torch.no_grad():
        success = net(theirs).argmax(1) != labels
    assert 0 < int(success.sum()) < len(labels), "the setting separates nothing"
    torch.testing.assert_close(result.success, success)
    l2 = (theirs - images).flatten(1).norm(dim=1)[success].mean()
    torch.testing.assert_close(result.l2[success].mean(), l2, rtol=0, atol=1e-4)


@pytest.mark.usefixtures("foreign_warnings")
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["fgsm", "bim", "pgd"])
def test_equals_foolbox(name: str, norm: Norm, net: nn.Module, data: Data) -> None:
    foolbox = pytest.importorskip("foolbox", reason="the oracle is not installed")

    epsilon = EPSILON[norm]
    attack: GradientAttack
    prefix = "Linf" if norm == "linf" else "L2"
    if name == "fgsm":
        attack = FGSM(epsilon=epsilon, norm=norm, stop_early=False)
        theirs = foolbox.attacks.FGSM() if norm == "linf" else foolbox.attacks.FGM()
    elif name == "bim":
        attack = BIM(epsilon=epsilon, norm=norm, steps=10, stop_early=False)
        kind = getattr(foolbox.attacks, f"{prefix}BasicIterativeAttack")
        theirs = kind(rel_stepsize=0.1, steps=10, random_start=False)
    else:
        attack = PGD(
            epsilon=epsilon, norm=norm, steps=40, step_size=epsilon / 30, random_start=False, stop_early=False
        )
        kind = getattr(foolbox.attacks, f"{prefix}ProjectedGradientDescentAttack")
        theirs = kind(rel_stepsize=1 / 30, steps=40, random_start=False)
    model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
    _, clipped, _ = theirs(model, *data, epsilons=epsilon)
    compare(attack, net, data, clipped)


@pytest.mark.usefixtures("foreign_warnings")
def test_mim_equals_art(net: nn.Module, data: Data) -> None:
    attacks = pytest.importorskip("art.attacks.evasion", reason="the oracle is not installed")
    estimators = pytest.importorskip("art.estimators.classification", reason="the oracle is not installed")
    classifier = estimators.PyTorchClassifier(
        net, nn.CrossEntropyLoss(), (1, 8, 8), 4, clip_values=(0, 1), device_type="cpu"
    )
    theirs = attacks.MomentumIterativeMethod(
        classifier, eps=0.12, eps_step=0.012, decay=1.0, max_iter=10, batch_size=60, verbose=False
    )
    adversarial = torch.from_numpy(theirs.generate(data[0].numpy(), np.asarray(data[1])))
    compare(MIM(epsilon=0.12, steps=10, stop_early=False), net, data, adversarial)
