"""Planted faults fire their checks; honest nets, at 3 bits or not, fire no disqualifying one."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import muquant
from muquant.compression.layers import quantizable_weights
from muquant.robustness.checks import CHECKS, planted
from muquant.robustness.evidence import Evidence

EvidenceOf = Callable[..., Evidence]
Nets = Callable[[str, int], nn.Module]

pytestmark = pytest.mark.slow
EPSILON = 0.12
"""At which about half of the images withstand PGD on the robust nets."""


@pytest.fixture(autouse=True)
def _fewer_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(planted, "IMAGES", 12)


def disqualified(evidence: Evidence) -> set[str]:
    """The names of the disqualifying checks that fire."""
    findings = {
        name: check.examine(evidence) for name, check in CHECKS.items() if check.kind == "disqualifying"
    }
    return {name for name, finding in findings.items() if finding is not None and finding.fired}


@pytest.mark.parametrize(  # every pair of kind, seed and bits
    ("kind", "seed", "bits"), [("ordinary", 0, 32), ("ordinary", 1, 3), ("robust", 0, 3), ("robust", 1, 32)]
)
def test_honest_nets_are_not_accused(
    net: Nets, evidence_of: EvidenceOf, kind: str, seed: int, bits: int
) -> None:
    module = net(kind, seed)
    module = muquant.compress(module).module if bits == 3 else module
    evidence = evidence_of(module, epsilon=EPSILON)
    assert disqualified(evidence) == set()


class Changed(nn.Module):
    """A module whose inputs or outputs are changed."""

    def __init__(
        self,
        module: nn.Module,
        before: Callable[[Tensor], Tensor] = lambda x: x,
        after: Callable[[Tensor], Tensor] = lambda x: x,
    ) -> None:
        super().__init__()
        self.module, self.before, self.after = module, before, after

    def forward(self, inputs: Tensor) -> Tensor:
        return self.after(self.module(self.before(inputs)))


def rounded(module: nn.Module) -> nn.Module:
    """What the second layer is given is rounded: the gradient is zero."""
    module = copy.deepcopy(module)
    second = quantizable_weights(module)[1].module
    second.register_forward_pre_hook(lambda _, arguments: ((4 * arguments[0]).round() / 4,))
    return module


@pytest.mark.parametrize(
    ("change", "fires"),
    [
        (lambda net: Changed(net, after=lambda logits: 1000 * logits), {"scale", "zero-gradients"}),
        (lambda net: Changed(net, after=lambda logits: logits.softmax(1)), {"softmax-output"}),
        (
            lambda net: Changed(net, before=lambda images: images + 0.1 * torch.randn_like(images)),
            {"random-logits", "unbounded-l2"},
        ),
        (rounded, {"zero-gradients", "unbounded", "planted-missed"}),
    ],
    ids=["large logits", "probabilities", "noise", "rounded activations"],
)
def test_planted_faults_are_found(
    net: Nets, evidence_of: EvidenceOf, change: Callable[[nn.Module], nn.Module], fires: set[str]
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        evidence = evidence_of(change(net("robust", 0)).eval(), epsilon=EPSILON)
        assert disqualified(evidence) == fires


@pytest.mark.parametrize("seed", [0, 1])
def test_weights_that_stay_companded_are_found_by_the_size_of_their_logits(
    net: Nets, evidence_of: EvidenceOf, seed: int
) -> None:
    """All layers, since digits are too easy for the gaps of logits that two layers make on MNIST."""
    spec = muquant.MuLawSpec(bits=8, mu=255, domain="mapped")
    module = muquant.compress(net("ordinary", seed), spec).module
    assert disqualified(evidence_of(module, epsilon=0.2, count=200)) == {"scale"}
