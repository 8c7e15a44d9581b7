"""Attacks on the batch that is trained on, which may go on from the epoch before."""

from torch import Tensor

from muquant.models.calls import evaluation_mode
from muquant.training.methods.method import Batch
from muquant.training.options.adversarial import Strength
from muquant.training.perturbations import PERTURBATIONS, Rise


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
