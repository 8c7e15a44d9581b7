"""Robust distillation: the answers of a robust network stand in for labels."""

from torch import Tensor

from muquant.training.methods.awp import Call
from muquant.training.methods.method import BatchLoss
from muquant.training.perturbations import divergence_rise

CLEAN = 1 / 6
"""The share of the loss that images have as they are: the value of the paper."""


def taught_loss(model: Call, inputs: Tensor, attacked: Tensor, taught: Tensor) -> BatchLoss:
    """How far a model's answers to images, as they are and attacked, are from what a teacher says of them.

    RSLAD: Zi et al., "Revisiting Adversarial Robustness Distillation: Robust Soft Labels Make Student
    Better", ICCV 2021: KL(T(x) || S(x)) / 6 + 5 KL(T(x) || S(x')) / 6, where x' was made to raise the
    second divergence.

    Args:
        model: the student, inputs to logits [N, classes].
        inputs: [N, ...].
        attacked: likewise.
        taught: the teacher's logits for the inputs, float32 [N, classes].
    """
    apart = divergence_rise(taught)
    clean, logits = model(inputs).float(), model(attacked).float()
    return BatchLoss(CLEAN * apart(clean) + (1 - CLEAN) * apart(logits), logits)
