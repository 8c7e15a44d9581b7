"""How adversarial training makes the images that it trains on: one function each, one line below."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from muquant.attacks.norms import project, random_start, steepest
from muquant.training.options.adversarial import Strength

Rise = Callable[[Tensor], Tensor]
"""logits float32 [N, classes] -> a scalar that the images shall raise"""

Perturbation = Callable[[nn.Module, Tensor, Rise, Strength, Generator, Tensor | None], Tensor]
"""(model in the mode in which it is to be attacked, clean images [N, ...] in [0, 1], what is to rise, how
strongly, the only source of randomness, images in the ball to begin with where the attack is one of
`CARRIED`) -> images of the same shape in [0, 1].

Only gradients by the images are computed, none by the weights."""

NOISE = 2.0
"""Noise of `n_fgsm`, in units of epsilon: what its paper takes for radii of photographs."""


def pgd(
    model: nn.Module,
    clean: Tensor,
    rise: Rise,
    strength: Strength,
    generator: Generator,
    start: Tensor | None = None,
) -> Tensor:
    """The last iterates of PGD in the Linf ball, from a start drawn uniformly from it (Madry et al. 2018).

    From where the attack on the same image ended an epoch ago, it is ATTA (Zheng et al., "Efficient
    Adversarial Training with Transferable Adversarial Examples", CVPR 2020): networks change little from
    epoch to epoch, so that two steps do the work of many.
    """
    images = random_start(clean, strength.epsilon, "linf", generator) if start is None else start
    for _ in range(strength.steps):
        moved = images + strength.step_size * _direction(model, images, rise)
        images = project(moved, clean, strength.epsilon, "linf")
    return images


def n_fgsm(
    model: nn.Module,
    clean: Tensor,
    rise: Rise,
    strength: Strength,
    generator: Generator,
    start: Tensor | None = None,
) -> Tensor:
    """One step from noise of twice epsilon, nothing projected into the ball.

    De Jorge et al., "Make Some Noise: Reliable and Efficient Single-Step Adversarial Training", NeurIPS 2022:
    it does not overfit to its own attack where one step from within the ball does.
    """
    noise = 2 * torch.rand(clean.shape, generator=generator).to(clean.device) - 1
    images = clean + NOISE * strength.epsilon * noise
    return (images + strength.step_size * _direction(model, images, rise)).clamp(0, 1)


PERTURBATIONS: dict[str, Perturbation] = {"pgd": pgd, "n-fgsm": n_fgsm, "atta": pgd}
"""What `TRAINING_ATTACKS` of `options/adversarial.py` has the usual strengths of."""


def cross_entropy_rise(targets: Tensor) -> Rise:
    """What Madry's attack raises: the cross-entropy, summed so that its gradients do not underflow."""
    return lambda logits: functional.cross_entropy(logits, targets, reduction="sum")


def divergence_rise(reference: Tensor) -> Rise:
    """What the attack of TRADES raises: KL(reference || logits), averaged over the images."""
    target = functional.log_softmax(reference, dim=1)

    def rise(logits: Tensor) -> Tensor:
        return functional.kl_div(
            functional.log_softmax(logits, dim=1), target, reduction="batchmean", log_target=True
        )

    return rise


def _direction(model: nn.Module, images: Tensor, rise: Rise) -> Tensor:
    """The signs of the gradient by the images."""
    images = images.detach().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(rise(model(images).float()), images)
    return steepest(gradient, "linf")
