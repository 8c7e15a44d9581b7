"""`Settings`: every number that a suite needs, with the values that are usual for a data set."""

import math
from dataclasses import dataclass, replace

from muquant.attacks import Norm, Threat, parse_epsilon


@dataclass(frozen=True)
class Settings:
    """What the attacks of a suite are run with.

    Attributes:
        epsilon: radius of the headline threat, in the norm below.
        norm: of the headline threat.
        weak: Linf radius of "FGSM (w)".
        medium: Linf radius of "FGSM (m)"; the strong one is the headline's.
        pgd_steps: of the paper's PGD.
        pgd_step_size: of the paper's PGD.
        l1: usual radius in L1.
        l2_bound: L2 distance at which the accuracy of smallest-norm attacks is stated.
        sigma: standard deviation of the normal noise.
        radius: of the uniform noise.
    """

    epsilon: float
    norm: Norm = "linf"
    weak: float = 2 / 255
    medium: float = 4 / 255
    pgd_steps: int = 20
    pgd_step_size: float = 2 / 255
    l1: float = 12.0
    l2_bound: float = 0.5
    sigma: float = 0.1
    radius: float = 0.1

    @property
    def threat(self) -> Threat:
        """The ball of the headline figure.

        Raises:
            InputError: norm or epsilon cannot be used.
        """
        return Threat(self.norm, self.epsilon)


MNIST = Settings(
    epsilon=0.3,
    weak=0.1,
    medium=0.2,
    pgd_steps=40,
    pgd_step_size=0.01,
    l1=10.0,
    l2_bound=2.0,
    sigma=0.3,
    radius=0.3,
)
CIFAR10 = Settings(epsilon=8 / 255)
DIGITS = replace(MNIST, epsilon=0.2, weak=0.07, medium=0.14, l1=3.0, l2_bound=1.0, sigma=0.2, radius=0.2)

SETTINGS: dict[str, Settings] = {"mnist": MNIST, "cifar10": CIFAR10, "digits": DIGITS}
"""Data set -> its usual settings; images of any other are taken for natural ones, like those of CIFAR-10."""


def settings_for(data: str, epsilon: float | str | None = None, norm: Norm | None = None) -> Settings:
    """The settings of a data set, with another headline threat where one is given.

    Args:
        data: a name of a data set.
        epsilon: of the headline threat, such as 0.3 or "8/255"; None for the usual one, which for "l2" is
            `l2_bound` and for "l1" is `l1`.
        norm: of the headline threat; None for "linf".

    Raises:
        InputError: epsilon or norm cannot be used.
    """
    usual = SETTINGS.get(data, CIFAR10)
    chosen = norm or usual.norm
    radius = {"linf": usual.epsilon, "l2": usual.l2_bound, "l1": usual.l1}.get(chosen, usual.epsilon)
    settings = replace(usual, norm=chosen, epsilon=radius if epsilon is None else parse_epsilon(epsilon))
    if not math.isclose(settings.epsilon, radius) and chosen == "linf":
        share = settings.epsilon / radius
        settings = replace(settings, weak=usual.weak * share, medium=usual.medium * share)
    _ = settings.threat
    return settings
