"""What the source varies: mu, the mapped layers, the width; and how large the error of a layer is."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

import muquant
from muquant.attacks import PGD, AttackResult, TorchTarget
from muquant.base.files import make_folder, write_json
from muquant.base.reading import read_json
from muquant.compression.amplification import Amplification, measure_amplification
from muquant.format.spec import Domain
from muquant.models.fingerprint import fingerprint
from muquant.robustness import Settings
from muquant.robustness.runner import Sample, describe, predictions
from paper.networks import map_weights

MUS = (1.0, 5.0, 16.0, 64.0, 255.0)
LAYERS = ("last:1", "last:2", "last:3")
DOMAINS: tuple[Domain, ...] = ("mapped", "decoded")
WIDTHS = tuple(range(2, 9))
LOSSES = {"ce": "cross-entropy", "margin": "margin"}


@dataclass(frozen=True, eq=False)
class Prober:
    """Tells what PGD leaves of a network, and remembers it.

    Attributes:
        settings: epsilons and steps.
        sample: the test images.
        path: a JSON file of what was found before.
    """

    settings: Settings
    sample: Sample
    path: Path

    def probe(self, module: nn.Module, epsilon: float) -> dict[str, float]:
        """Accuracy on clean images and under PGD on either loss, 0..1.

        Args:
            module: in evaluation mode.
            epsilon: Linf radius; steps are as long in relation to it as those of the suite.
        """
        known = read_json(self.path) if self.path.exists() else {}
        key = f"{fingerprint(module)} {self.sample.digest} {describe(self._attack(epsilon, 'ce'))}"
        if key not in known:
            known[key] = self._measure(module, epsilon)
            make_folder(self.path.parent)
            write_json(self.path, known)
        found: dict[str, float] = known[key]
        return found

    def attack(self, module: nn.Module, epsilon: float, loss: str) -> AttackResult:
        """PGD on every image of the sample."""
        attack = self._attack(epsilon, loss)
        return attack.attack(TorchTarget(module), self.sample.images, self.sample.labels, seed=0)

    def _attack(self, epsilon: float, loss: str) -> PGD:
        step = self.settings.pgd_step_size * epsilon / self.settings.epsilon
        return PGD(epsilon=epsilon, steps=self.settings.pgd_steps, step_size=step, loss=loss)

    def _measure(self, module: nn.Module, epsilon: float) -> dict[str, float]:
        target = TorchTarget(module)
        with target.ready(), torch.no_grad():
            clean = predictions(target, self.sample.images) == self.sample.labels
        found = {loss: self.attack(module, epsilon, loss).accuracy for loss in LOSSES}
        return {"clean": float(clean.double().mean()), **found}


def mapping(model: nn.Module, prober: Prober) -> Iterator[dict[str, Any]]:
    """The last layers at 3 bits by the law, all others in float; the strong epsilon.

    In the mapped domain F(W) is deployed, in the decoded one F is a codec and the levels are expanded again.
    """
    for layers in LAYERS:
        for mu in MUS:
            for domain in DOMAINS:
                spec = replace(muquant.SOURCE_SPEC, mu=mu, domain=domain)
                compressed = muquant.compress(model, spec, layers=layers, observer="absmax", flat=True)
                found = prober.probe(compressed.module, prober.settings.epsilon)
                yield {"layers": layers, "mu": mu, "domain": domain, **found}


def widths(model: nn.Module, prober: Prober, epsilon: float) -> Iterator[dict[str, Any]]:
    """All layers at 2 to 8 bits by the source's quantizer and by ours, without samples."""
    for bits in WIDTHS:
        for name, spec, observer in (
            ("source", muquant.SOURCE_SPEC.with_bits(bits), "absmax"),
            ("ours", muquant.MuLawSpec(bits), "search"),
        ):
            module = muquant.compress(model, spec, observer=observer, flat=True).module
            yield {"quantizer": name, "bits": bits, "epsilon": epsilon, **prober.probe(module, epsilon)}


def lipschitz(model: nn.Module, mu: float) -> list[dict[str, Any]]:
    """||dW||_2 of each layer as a linear map on its inputs; above 1 errors may grow.

    "before": dW = Q(W) - W by the source's quantizer; "after": Q(F(W)) - F(W), with every layer mapped;
    "ours": our 3 bits, without samples.
    """
    forms = {
        "before": muquant.compress(model, muquant.SOURCE_SPEC, observer="absmax", flat=True),
        "after": muquant.compress(
            map_weights(model, "all", mu), muquant.SOURCE_SPEC, observer="absmax", flat=True
        ),
        "ours": muquant.compress(model, flat=True),
    }
    rows: dict[str, dict[str, Any]] = {}
    for form, compressed in forms.items():
        for layer in compressed.report:
            rows.setdefault(layer.name, {"layer": layer.name})[form] = layer.delta_norms.two
    return list(rows.values())


def amplification(model: nn.Module, prober: Prober) -> dict[str, Amplification]:
    """The error of every layer's output in the (Q) and in ours, on images that fool the float net."""
    found = prober.attack(model, prober.settings.epsilon, "margin")
    images, adversarial = prober.sample.images[found.success], found.adversarial[found.success]
    forms = {
        "source": muquant.compress(model, muquant.SOURCE_SPEC, observer="absmax", flat=True),
        "ours": muquant.compress(model, flat=True),
    }
    return {
        name: measure_amplification(model, compressed, images, adversarial)
        for name, compressed in forms.items()
    }
