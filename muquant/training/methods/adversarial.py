"""Adversarial training: the loss of images that an attack on the model as it stands has just made."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from muquant.attacks import PGD
from muquant.data import Dataset
from muquant.models.calls import evaluation_mode
from muquant.training.methods.attacked import (
    VALIDATED,
    VALIDATION_STEPS,
    attack_batch,
    judging_attack,
    withstanding,
)
from muquant.training.methods.awp import Call, with_worse_weights
from muquant.training.methods.distillation import taught_loss
from muquant.training.methods.method import Batch, BatchLoss, Method
from muquant.training.options.adversarial import CARRIED, AdversarialOptions
from muquant.training.perturbations import cross_entropy_rise, divergence_rise
from muquant.training.progress import EpochMetrics

COLLAPSE, LARGE_GAP = 0.5, 0.2
"""Training has overfitted to its attack where 10 steps on the margin leave less than this share of the
accuracy that its own attack leaves, and the difference is no noise of a model near chance. Sound models keep
over 0.8 of it."""


class Adversarial(Method):
    """The cross-entropy of adversarial images (Madry et al., "Towards Deep Learning Models Resistant to
    Adversarial Attacks", ICLR 2018); with `trades` above 0 that of the images as they are, and beta times the
    Kullback-Leibler divergence that an attack can add (Zhang et al., "Theoretically Principled Trade-off
    between Robustness and Accuracy", ICML 2019).

    With one attack step this is the fast variant of Wong et al., "Fast is better than free", ICLR 2020: a
    random start and one long step. Training can overfit to its own attack from one epoch to the next, with
    one long step as with a few of them; `fault` finds that.

    With the attack "atta" each image's perturbation, in units of epsilon, is carried to the next epoch.

    With `awp` above 0 the loss is that of the worst weights near by, see `with_worse_weights`, once
    epsilon has risen.

    With a teacher, a network that is robust already, its answers stand in for the labels, see `taught_loss`.

    The attack sees the model in evaluation mode, as in TRADES: its images leave the running statistics alone,
    and Pang et al., "Bag of Tricks for Adversarial Training", ICLR 2021, find the result no less robust and
    more accurate. The loss sees it in training mode. The training accuracy is that of the adversarial images.
    """

    takes_teacher = True

    @property
    def carries(self) -> bool:
        """Whether attacks begin where they ended an epoch ago."""
        return self._options.attack in CARRIED

    def loss(self, batch: Batch) -> BatchLoss:
        """Attack the batch, and take the loss of what comes out."""
        rise, taught = cross_entropy_rise(batch.targets), None
        if self.teacher is not None:
            with torch.no_grad():
                taught = self.teacher(batch.inputs).float()
            rise = divergence_rise(taught)
        elif self._options.trades:
            with torch.no_grad(), evaluation_mode(batch.model):
                rise = divergence_rise(batch.model(batch.inputs).float())
        strength, model = self._options.strength(batch.progress), batch.model.__call__
        attacked, carried = attack_batch(self._options.attack, batch, rise, strength)
        if self._options.awp and batch.progress >= self._options.epsilon_warmup:
            model = with_worse_weights(
                batch.model, lambda call: self._loss(call, batch, attacked, taught).loss, self._options.awp
            )
        return replace(self._loss(model, batch, attacked, taught), carried=carried)

    def _loss(self, model: Call, batch: Batch, attacked: Tensor, taught: Tensor | None) -> BatchLoss:
        """That of a model for the images of a batch as they are and attacked."""
        if taught is not None:
            return taught_loss(model, batch.inputs, attacked, taught)
        smoothing, beta = self.config.label_smoothing, self._options.trades
        if not beta:
            logits = model(attacked).float()
            loss = functional.cross_entropy(logits, batch.targets, label_smoothing=smoothing)
            return BatchLoss(loss, logits)
        clean, logits = model(batch.inputs).float(), model(attacked).float()
        loss = functional.cross_entropy(clean, batch.targets, label_smoothing=smoothing)
        return BatchLoss(loss + beta * divergence_rise(clean)(logits), logits)

    def validate(self, model: nn.Module, held_out: Dataset) -> Mapping[str, float]:
        """The accuracy that is left of up to 500 held-out images after 10 steps on the logit margin, and
        after the attack that is trained on, both at the full epsilon.
        """
        images = held_out.evenly(VALIDATED)
        epsilon, steps = self._options.epsilon, self._options.attack_steps
        assert epsilon is not None
        assert steps is not None
        attacks = {
            "robust_accuracy": judging_attack(epsilon),
            "trained_attack_accuracy": PGD(
                epsilon=epsilon, steps=steps, step_size=self._options.attack_step_size
            ),
        }
        return {
            name: withstanding(model, images, attack, self.config.seed) for name, attack in attacks.items()
        }

    def fault(self, record: EpochMetrics) -> str | None:
        """Catastrophic overfitting to the attack that is trained on, once epsilon has risen."""
        trained, judged = record.trained_attack_accuracy, record.robust_accuracy
        if trained is None or judged is None or judged >= COLLAPSE * trained or trained - judged < LARGE_GAP:
            return None
        if record.epoch < self._options.epsilon_warmup * self.config.epochs:
            return None
        steps = self._options.attack_steps
        return (
            f"catastrophic overfitting, {trained:.1%} of the held-out images withstand the attack that is "
            f"trained on (steps: {steps}), {judged:.1%} withstand {VALIDATION_STEPS} steps on the margin; "
            f"start a new run with more --attack-steps or a smaller --attack-step-size"
        )

    @property
    def _options(self) -> AdversarialOptions:
        assert self.config.adversarial is not None
        return self.config.adversarial
