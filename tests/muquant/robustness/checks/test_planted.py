"""Planted adversarial examples: that they exist, that APGD-CE finds them, and a broken gradient does not."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from muquant.attacks import Norm, Threat
from muquant.attacks.norms import size
from muquant.robustness.checks import planted
from muquant.robustness.checks.planted import features, plant, planted_missed
from muquant.robustness.evidence import Evidence, Finding

pytestmark = pytest.mark.slow
EvidenceOf = Callable[..., Evidence]
Found = Callable[[Any, Evidence], Finding]


class Net(nn.Module):
    """A random hidden layer, and in front of it what a subclass does to the images."""

    def __init__(self) -> None:
        super().__init__()
        self.hidden, self.last = nn.Linear(64, 48), nn.Linear(48, 10)
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.last(self.hidden(self.look(inputs).flatten(1)).relu())
        return logits

    def look(self, inputs: Tensor) -> Tensor:
        return inputs


class Rounded(Net):
    """Its features change with the image, but their gradient is zero."""

    def look(self, inputs: Tensor) -> Tensor:
        return (inputs * 15).round() / 15


class HalfRounded(Net):
    """So it is for images that are dark on the whole."""

    def look(self, inputs: Tensor) -> Tensor:
        dark = (inputs.flatten(1).mean(1) < 0.3)[:, None, None, None]
        return torch.where(dark, (inputs * 15).round() / 15, inputs)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_planted_point_lies_in_the_ball_and_fools_the_readout(
    norm: Norm, monkeypatch: pytest.MonkeyPatch
) -> None:
    net, image = Net(), torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    shown: list[Tensor] = []

    def see(module: nn.Module, layer: nn.Module, inputs: Tensor) -> Tensor:
        shown.append(inputs)
        return features(module, layer, inputs)

    monkeypatch.setattr(planted, "features", see)
    readout = plant(net, net.last, image, Threat(norm, 0.3), torch.Generator().manual_seed(2))
    assert readout is not None
    crowd, point = shown[0][:-1], shown[0][-1:]
    assert torch.equal(crowd[:1], image)
    assert len(crowd) == 201
    assert float(size(crowd - image, norm).max()) <= 0.95 * 0.3 + 1e-6
    assert float(size(point - image, norm)) <= 0.3 + 1e-6
    assert bool(((shown[0] >= 0) & (shown[0] <= 1)).all())
    monkeypatch.undo()
    with torch.no_grad():
        scores = readout(shown[0])
    assert scores.argmax(1).tolist() == [0] * 201 + [1]
    torch.testing.assert_close(scores[:, 0], -scores[:, 1])
    assert float(scores[-1, 1]) == pytest.approx(0.05, abs=1e-3)
    assert float(scores[:-1, 1].max()) == pytest.approx(-0.95, abs=1e-3)


def test_features_are_what_the_layer_is_given() -> None:
    net, images = Net(), torch.rand(3, 1, 8, 8)
    torch.testing.assert_close(features(net, net.last, images), net.hidden(images.flatten(1)).relu())
    assert features(net, nn.Linear(1, 1), images).shape == (3, 0)
    assert not net.last._forward_pre_hooks


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_it_finds_what_is_planted_in_an_honest_net(found: Found, evidence_of: EvidenceOf, norm: Norm) -> None:
    finding = found(planted_missed, evidence_of(Net(), epsilon=0.3 if norm == "linf" else 2.0, norm=norm))
    assert finding.value == 0
    assert "of 30 planted examples APGD-CE finds 30" in finding.explanation


def test_it_misses_it_without_a_gradient(found: Found, evidence_of: EvidenceOf) -> None:
    finding = found(planted_missed, evidence_of(Rounded(), epsilon=0.3))
    assert finding.fired
    assert finding.value > 0.5


def test_it_misses_it_where_half_the_images_have_no_gradient(found: Found, evidence_of: EvidenceOf) -> None:
    finding = found(planted_missed, evidence_of(HalfRounded(), epsilon=0.2))
    assert finding.fired
    assert 0.2 < finding.value < 0.8


class NoGradient(Net):
    """Its features do not depend on the image by differentiable operations, but its output does."""

    def forward(self, inputs: Tensor) -> Tensor:
        return super().forward(inputs.detach()) + inputs.flatten(1).mean(1, keepdim=True)


class Unused(Net):
    """Its last layer is never called."""

    def forward(self, inputs: Tensor) -> Tensor:
        hidden: Tensor = self.hidden(inputs.flatten(1))
        return hidden[:, :10]


class NoLayers(nn.Module):
    def forward(self, inputs: Tensor) -> Tensor:
        return inputs.flatten(1)[:, :10]


@pytest.mark.parametrize(
    "module", [NoGradient(), Unused(), NoLayers()], ids=lambda module: type(module).__name__
)
def test_no_answer_where_nothing_can_be_planted(evidence_of: EvidenceOf, module: nn.Module) -> None:
    assert planted_missed(evidence_of(module)) is None


def test_no_answer_for_few_images_and_no_radius(evidence_of: EvidenceOf) -> None:
    assert planted_missed(evidence_of(Net(), count=9)) is None
    assert planted_missed(evidence_of(Net(), count=12, epsilon=0.0)) is None
