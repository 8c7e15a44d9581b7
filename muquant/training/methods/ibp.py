"""Certified training: the loss of the worst logits that intervals allow."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional

from muquant.certification import certify
from muquant.certification.bounds import interval
from muquant.certification.operations import Range
from muquant.certification.trace import Traced, traced
from muquant.data import Dataset
from muquant.training.methods.attacked import VALIDATED, attack_batch, judging_attack, withstanding
from muquant.training.methods.growth import growth_penalty
from muquant.training.methods.method import Batch, BatchLoss, Method
from muquant.training.options.adversarial import Strength
from muquant.training.options.ibp import IbpOptions
from muquant.training.perturbations import cross_entropy_rise

ATTACK = "atta"
"""On images that are trained on beside their balls."""


class Ibp(Method):
    """The cross-entropy of the worst logits in a ball, as interval bounds tell them (Gowal et al., "On the
    Effectiveness of Interval Bound Propagation for Training Verifiably Robust Models", 2018).

    Epsilon rises, from balls that are next to nothing. Weights begin so small that intervals neither grow nor
    vanish from layer to layer, and `growth_penalty` keeps them so while epsilon rises (Shi et al., "Fast
    Certified Robust Training with Short Warmup", NeurIPS 2021). With quantization-aware training the weights
    whose bounds are taken are the decoded ones. The training accuracy is the share of the balls of the step's
    epsilon that are certified. Bounds are computed in the precision of the run; what is said of a finished
    network is proven in double precision, see `certify`.

    With `attacked` above 0 the loss of attacked images counts, too, and may be most of it.
    """

    @property
    def carries(self) -> bool:
        """Whether attacks begin where they ended an epoch ago."""
        return self._options.attacked > 0

    def initialize(self, model: nn.Module) -> None:
        """Weights of mean 0 and deviation sqrt(2 pi) / inputs: a radius keeps its mean behind ReLU."""
        for module in model.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.normal_(module.weight, std=math.sqrt(2 * math.pi) / module.weight[0].numel())
                if module.bias is not None:
                    nn.init.zeros_(module.bias)

    def loss(self, batch: Batch) -> BatchLoss:
        """The loss of the images, and of their balls, in the shares that belong to the step."""
        share, entropy = self._options.share(batch.progress), self._entropy
        kept, attacked = (self._options.clean, self._options.attacked) if share else (1.0, 0.0)
        total, carried = torch.zeros((), device=batch.inputs.device), batch.carried
        if kept:
            logits = batch.model(batch.inputs).float()
            total = kept * entropy(logits, batch.labels)
        if attacked:
            rise = cross_entropy_rise(batch.labels)
            images, carried = attack_batch(ATTACK, batch, rise, self._strength(share))
            total = total + attacked * entropy(batch.model(images).float(), batch.labels)
        if share:
            bounds = self._bounds(batch, share)
            logits = -interval(bounds, batch.labels).float()
            total = total + (1 - kept - attacked) * entropy(logits, batch.labels)
            if share < 1 and self._options.balance:
                total = total + self._options.balance * (1 - share) * growth_penalty(bounds)
        return BatchLoss(total, logits, carried)

    def validate(self, model: nn.Module, held_out: Dataset) -> Mapping[str, float]:
        """The share of up to 500 held-out images that intervals certify at the full epsilon, and where images
        are attacked, too, the share that PGD leaves.
        """
        images = held_out.evenly(VALIDATED)
        epsilon = self._options.epsilon
        assert epsilon is not None
        proven = certify(model, images.inputs(), images.labels, epsilon, bound="ibp")
        found = {"robust_accuracy": proven.accuracy}
        if self._options.attacked:
            left = withstanding(model, images, judging_attack(epsilon), self.config.seed)
            found["trained_attack_accuracy"] = left
        return found

    def _entropy(self, logits: Tensor, labels: Tensor) -> Tensor:
        return functional.cross_entropy(logits, labels, label_smoothing=self.config.label_smoothing)

    def _strength(self, share: float) -> Strength:
        """The attack in the balls of a share of epsilon."""
        epsilon = self._options.epsilon
        assert epsilon is not None
        return Strength.usual(ATTACK, share * epsilon)

    def _bounds(self, batch: Batch, share: float) -> Traced:
        """The network on the balls of a share of epsilon."""
        epsilon = self._options.epsilon
        assert epsilon is not None
        radius = share * epsilon
        ball = Range((batch.inputs - radius).clamp(min=0), (batch.inputs + radius).clamp(max=1))
        return traced(batch.model, ball)

    @property
    def _options(self) -> IbpOptions:
        assert self.config.ibp is not None
        return self.config.ibp
