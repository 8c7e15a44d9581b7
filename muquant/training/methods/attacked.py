"""Attacks on the batch that is trained on, which may go on from the epoch before, and on held-out images."""

from torch import Tensor, nn

from muquant.attacks import PGD, TorchTarget
from muquant.base.seeds import derive_seed
from muquant.data import Dataset
from muquant.models.calls import evaluation_mode
from muquant.training.methods.method import Batch
from muquant.training.options.adversarial import Strength
from muquant.training.perturbations import PERTURBATIONS, Rise

VALIDATED, VALIDATION_STEPS = 500, 10
"""Held-out images that are judged after each epoch, and the steps of the attack that judges."""


def attack_batch(attack: str, batch: Batch, rise: Rise, strength: Strength) -> tuple[Tensor, Tensor | None]:
    """Attack a batch with the model in evaluation mode.

    Args:
        attack: a name of `PERTURBATIONS`.
        batch: whose `carried`, if there is one, says where to begin.
        rise: what images shall raise.
        strength: of the attack.

    Returns:
        Attacked images, and by how much of epsilon each value was moved; None where the batch carries
        nothing.
    """
    epsilon, carried, start = strength.epsilon, batch.carried, None
    if carried is not None:
        start = (batch.inputs + epsilon * carried).clamp(0, 1)
    with evaluation_mode(batch.model):
        attacked = PERTURBATIONS[attack](batch.model, batch.inputs, rise, strength, batch.generator, start)
    if carried is None:
        return attacked, None
    return attacked, (attacked - batch.inputs) / epsilon if epsilon else carried


def withstanding(model: nn.Module, images: Dataset, attack: PGD, seed: int) -> float:
    """Return the accuracy that an attack leaves of held-out images; the seed is that of the run."""
    drawn = derive_seed(seed, "robust validation")
    return attack.attack(TorchTarget(model), images.inputs(), images.labels, seed=drawn).accuracy


def judging_attack(epsilon: float) -> PGD:
    """The short attack that judges a network after an epoch: on the logit margin."""
    return PGD(epsilon=epsilon, steps=VALIDATION_STEPS, loss="margin")
