"""Calls shaped like AutoAttack's and Foolbox's do what these do."""

import warnings

import pytest
import torch
from torch import Tensor, nn

from muquant.attacks import FGSM, PGD, CallableTarget, TorchTarget
from muquant.base.errors import InputError
from muquant.data import Dataset
from muquant.robustness import AutoAttack, at_epsilons


@pytest.fixture
def flawed(quarters: Dataset) -> tuple[Tensor, Tensor]:
    """40 images, the labels of ten of them wrong."""
    labels = quarters.labels[:40].clone()
    labels[::4] = (labels[::4] + 1) % 4
    return quarters.inputs(slice(0, 40)), labels


def test_autoattack_leaves_what_its_attacks_leave(net: nn.Module, flawed: tuple[Tensor, Tensor]) -> None:
    adversary = AutoAttack(net, norm="Linf", eps=0.093, seed=3)
    adversarial = adversary.run_standard_evaluation(*flawed, bs=16)
    images, labels = flawed
    with torch.no_grad():
        right, stands = (net(each).argmax(1) == labels for each in (images, adversarial))
    assert (adversarial - images).abs().max() <= 0.093 + 1e-6
    assert torch.equal(adversarial[~right], images[~right])
    shares = adversary.robust_accuracy
    assert list(shares) == ["clean", "apgd-ce", "apgd-t", "fab-t", "square"]
    assert shares["clean"] == 0.75
    assert shares["square"] == int((right & stands).sum()) / 40
    assert sorted(shares.values(), reverse=True) == list(shares.values())
    assert 0 < shares["square"] < shares["apgd-ce"] < 0.75, "the setting tests nothing"


def test_what_is_fooled_entirely_is_done(net: nn.Module, flawed: tuple[Tensor, Tensor]) -> None:
    adversary = AutoAttack(TorchTarget(net), norm="L2", eps=3)
    adversary.run_standard_evaluation(*flawed)
    assert adversary.robust_accuracy == {"clean": 0.75, "apgd-ce": 0, "apgd-t": 0, "fab-t": 0, "square": 0}


def test_several_radii_give_what_foolbox_gives(net: nn.Module, flawed: tuple[Tensor, Tensor]) -> None:
    foolbox = pytest.importorskip("foolbox", reason="the oracle is not installed")
    epsilons = [0.05, 0.1, 0.12]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the library's own code raises is not ours to mend
        model = foolbox.PyTorchModel(net, bounds=(0, 1), device="cpu")
        _, theirs, expected = foolbox.attacks.FGSM()(model, *flawed, epsilons=epsilons)
    raw, clipped, found = at_epsilons(FGSM, net, *flawed, epsilons=epsilons)
    assert torch.equal(found, expected)
    assert 10 <= int(found[0].sum()) < int(found[1].sum()) < int(found[2].sum()) < 40
    for mine, other, wrong in zip(clipped, theirs, found, strict=True):
        fooled = wrong & (mine != flawed[0]).flatten(1).any(1)
        torch.testing.assert_close(mine[fooled], other[fooled])
    assert all(torch.equal(*pair) for pair in zip(raw, clipped, strict=True))


def test_what_cannot_be_used_is_refused(net: nn.Module, flawed: tuple[Tensor, Tensor]) -> None:
    with pytest.raises(InputError, match="norm 'linf' is unknown; expected one of Linf, L2, L1"):
        AutoAttack(net, norm="linf")
    with pytest.raises(InputError, match=r"version: expected .standard., found 'rand'"):
        AutoAttack(net, version="rand")
    with pytest.raises(InputError, match="labels: expected int64"):
        AutoAttack(net).run_standard_evaluation(flawed[0], flawed[1][:-1])
    with pytest.raises(InputError, match="needs gradients"):
        AutoAttack(CallableTarget(lambda x: x.reshape(len(x), -1)[:, :4])).run_standard_evaluation(*flawed)
    with pytest.raises(InputError, match="epsilons: expected one radius or more"):
        at_epsilons(PGD, net, *flawed, epsilons=[])
