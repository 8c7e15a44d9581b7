"""`muquant.robustness.AutoAttack` beside AutoAttack's own class, on a network of RobustBench."""

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from muquant import MuLawSpec, compress
from muquant.robustness import AutoAttack

REASON = "needs robustbench and pyautoattack: make test-integrations"
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]
EPSILON = 0.028
"""At which some images are left."""


@pytest.fixture(scope="module")
def theirs() -> Any:
    """AutoAttack's own class."""
    return pytest.importorskip("pyautoattack", reason=REASON).AutoAttack


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A wide ResNet as RobustBench has it, with random weights: nothing is downloaded."""
    # the release of RobustBench on PyPI requires pyautoattack, and imports it by another name
    sys.modules["autoattack"] = pytest.importorskip("pyautoattack", reason=REASON)
    architectures = pytest.importorskip("robustbench.model_zoo.architectures.wide_resnet", reason=REASON)
    torch.manual_seed(0)
    network: nn.Module = architectures.WideResNet(depth=10, widen_factor=1, num_classes=10)
    return network.eval()


@pytest.fixture(scope="module")
def images(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Images [8, 3, 32, 32] in [0, 1], and the classes that the network sees."""
    found = torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return found, model(found).argmax(1)


def test_calls_and_figures_are_those_of_autoattack(
    theirs: Any, model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    left = {}
    for name, kind in {"theirs": theirs, "ours": AutoAttack}.items():
        adversary = kind(model, norm="Linf", eps=EPSILON, seed=0, version="standard")
        found = adversary.run_standard_evaluation(*images)
        adversarial = found[0] if name == "theirs" else found  # this one of its releases adds the labels
        assert adversarial.shape == images[0].shape
        assert float((adversarial - images[0]).abs().max()) <= EPSILON + 1e-6
        with torch.no_grad():
            left[name] = int((model(adversarial).argmax(1) == images[1]).sum())
    assert 0 < left["theirs"] < len(images[0])
    assert abs(left["ours"] - left["theirs"]) <= 1


def test_a_network_of_robustbench_is_attacked_in_few_bits(
    model: nn.Module, images: tuple[Tensor, Tensor]
) -> None:
    compressed = compress(model, MuLawSpec(3), example=images[0], check=False)
    labels = compressed.module(images[0]).argmax(1)
    adversary = AutoAttack(compressed.module, norm="Linf", eps=0.1)
    adversarial = adversary.run_standard_evaluation(images[0], labels, bs=8)
    with torch.no_grad():
        left = float((compressed.module(adversarial).argmax(1) == labels).float().mean())
    assert min(adversary.robust_accuracy.values()) == pytest.approx(left)
