"""Adversarial training: the loss of images that an attack on the model as it stands has just made."""

from collections.abc import Callable, Mapping

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from muquant.attacks import PGD, TorchTarget
from muquant.attacks.norms import project, random_start, steepest
from muquant.base.seeds import derive_seed
from muquant.data import Dataset
from muquant.models.calls import evaluation_mode
from muquant.training.methods.method import Batch, BatchLoss, Method
from muquant.training.options.adversarial import AdversarialOptions, Strength
from muquant.training.progress import EpochMetrics

VALIDATED, VALIDATION_STEPS = 500, 10
"""Held-out images that are attacked after each epoch, and the steps of that attack."""

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

    The attack sees the model in evaluation mode, as in TRADES: its images leave the running statistics alone,
    and Pang et al., "Bag of Tricks for Adversarial Training", ICLR 2021, find the result no less robust and
    more accurate. The loss sees it in training mode. The training accuracy is that of the adversarial images.
    """

    def loss(self, batch: Batch) -> BatchLoss:
        """Attack the batch, and take the loss of what comes out."""
        smoothing, beta = self.config.label_smoothing, self._options.trades
        if not beta:
            logits = batch.model(self._attack(batch, cross_entropy_rise(batch.labels))).float()
            loss = functional.cross_entropy(logits, batch.labels, label_smoothing=smoothing)
            return BatchLoss(loss, logits)
        with torch.no_grad(), evaluation_mode(batch.model):
            reference = batch.model(batch.inputs).float()
        attacked = self._attack(batch, divergence_rise(reference))
        clean, logits = batch.model(batch.inputs).float(), batch.model(attacked).float()
        loss = functional.cross_entropy(clean, batch.labels, label_smoothing=smoothing)
        return BatchLoss(loss + beta * divergence_rise(clean)(logits), logits)

    def validate(self, model: nn.Module, held_out: Dataset) -> Mapping[str, float]:
        """The accuracy that is left of up to 500 held-out images after 10 steps on the logit margin, and
        after the attack that is trained on, both at the full epsilon.
        """
        count = min(len(held_out), VALIDATED)
        images = held_out.subset(torch.arange(count) * len(held_out) // count)  # evenly over the whole
        epsilon, step_size = self._options.epsilon, self._options.attack_step_size
        assert epsilon is not None
        attacks = {
            "robust_accuracy": PGD(epsilon=epsilon, steps=VALIDATION_STEPS, loss="margin"),
            "trained_attack_accuracy": PGD(
                epsilon=epsilon, steps=self._options.attack_steps, step_size=step_size
            ),
        }
        seed = derive_seed(self.config.seed, "robust validation")
        target, inputs = TorchTarget(model), images.inputs()
        return {
            name: attack.attack(target, inputs, images.labels, seed=seed).accuracy
            for name, attack in attacks.items()
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

    def _attack(self, batch: Batch, rise: Callable[[Tensor], Tensor]) -> Tensor:
        strength = self._options.strength(batch.progress)
        with evaluation_mode(batch.model):
            return perturb(batch.model, batch.inputs, rise, strength, batch.generator)


def perturb(
    model: nn.Module,
    clean: Tensor,
    rise: Callable[[Tensor], Tensor],
    strength: Strength,
    generator: Generator,
) -> Tensor:
    """Images in the Linf ball around `clean`, and in [0, 1], for which `rise` is large: PGD's last iterates.

    Only gradients by the images are computed, none by the weights.

    Args:
        model: in the mode in which it is to be attacked.
        clean: [N, ...] in [0, 1].
        rise: logits float32 [N, classes] -> a scalar.
        strength: of the attack.
        generator: draws the start, uniform in the ball.
    """
    images = random_start(clean, strength.epsilon, "linf", generator)
    for _ in range(strength.steps):
        images.requires_grad_()
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(rise(model(images).float()), images)
        with torch.no_grad():
            moved = images + strength.step_size * steepest(gradient, "linf")
            images = project(moved, clean, strength.epsilon, "linf")
    return images


def cross_entropy_rise(labels: Tensor) -> Callable[[Tensor], Tensor]:
    """What Madry's attack raises: the cross-entropy, summed so that its gradients do not underflow."""
    return lambda logits: functional.cross_entropy(logits, labels, reduction="sum")


def divergence_rise(reference: Tensor) -> Callable[[Tensor], Tensor]:
    """What the attack of TRADES raises: KL(reference || logits), averaged over the images."""
    target = functional.log_softmax(reference, dim=1)

    def rise(logits: Tensor) -> Tensor:
        return functional.kl_div(
            functional.log_softmax(logits, dim=1), target, reduction="batchmean", log_target=True
        )

    return rise
