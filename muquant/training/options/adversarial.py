"""The options of adversarial training."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from muquant.base.errors import InputError
from muquant.base.registry import look_up
from muquant.base.values import check_fields, field_values

USUAL_EPSILON = {"mnist": 0.3, "cifar10": 8 / 255}
"""Data set -> the Linf radius that the literature reports (Madry et al. 2018)."""

REACH, SINGLE_STEP_REACH = 2.5, 1.25
"""How far all steps together go, in units of epsilon, where no step size is given: Madry et al. 2018; for one
step Wong et al. 2020."""

TRAINING_ATTACKS = {"pgd": (5, None), "n-fgsm": (1, 1.0), "atta": (2, 2 / 3)}
"""Attack -> its usual steps, and how far they go together; None for the values above. `PERTURBATIONS` of
`training/perturbations.py` has the attacks themselves."""

CARRIED = frozenset({"atta"})
"""Attacks that begin where the one on the same image ended an epoch ago."""


def epsilon_for(data: str, given: float | None, what: str, option: str) -> float:
    """Return the Linf radius that is given, or the usual one of a data set.

    Raises:
        InputError: neither is there; `what` asks for it by `option`.
    """
    epsilon = USUAL_EPSILON.get(data) if given is None else given
    if epsilon is None:
        raise InputError(f"{what} on {data} has no usual epsilon; give {option}, in units of the input range")
    return epsilon


@dataclass(frozen=True)
class Strength:
    """An attack in the Linf ball.

    Attributes:
        epsilon: radius of the ball.
        steps: gradient steps, 1 or more.
        step_size: length of one.
    """

    epsilon: float
    steps: int
    step_size: float

    @classmethod
    def usual(cls, attack: str, epsilon: float, steps: int | None = None) -> Self:
        """The strength of an attack of `TRAINING_ATTACKS` of which less is said; None is its usual steps."""
        usual, reach = TRAINING_ATTACKS[attack]
        steps = steps or usual
        reach = reach or (SINGLE_STEP_REACH if steps == 1 else REACH)
        return cls(epsilon, steps, reach * epsilon / steps)


@dataclass(frozen=True)
class AdversarialOptions:
    """What adversarial training defends against, and how hard its attack tries.

    Attributes:
        epsilon: Linf radius in units of the input range, above 0 and below 1; None is the usual one of the
            data set.
        attack: a name of `TRAINING_ATTACKS`.
        attack_steps: gradient steps of the attack, 1 or more; None is 5 of "pgd", 2 of "atta", and 1 of
            "n-fgsm", which has no more. 1 of "pgd" is the fast variant of Wong et al. 2020.
        attack_step_size: length of a step, like `epsilon`; None is 2.5 epsilon / steps of "pgd", 1.25 epsilon
            for its single one, epsilon for "n-fgsm", and 2/3 epsilon / steps for "atta".
        epsilon_warmup: the fraction of the run's steps, at least 0 and at most 1, in which epsilon rises
            along a straight line, and the number of attack steps with it. Without, large radii such as
            0.3 on MNIST are not learned at all.
        trades: weight beta of the TRADES loss (Zhang et al. 2019), 0 or more; 0 is the cross-entropy of the
            adversarial images alone (Madry et al. 2018).
        awp: by how much of its norm every weight is moved towards a higher loss before that is taken
            (adversarial weight perturbation: Wu et al. 2020, who take 0.005), 0 or more.

    Raises:
        InputError: a value is of another type or out of range, or two values contradict.
    """

    epsilon: float | None = None
    attack: str = "pgd"
    attack_steps: int | None = None
    attack_step_size: float | None = None
    epsilon_warmup: float = 0.3
    trades: float = 0.0
    awp: float = 0.0

    def __post_init__(self) -> None:
        check_fields(self, _RANGES, "training option")
        look_up("attack", self.attack, TRAINING_ATTACKS)
        if self.attack == "n-fgsm" and (self.attack_steps or 1) > 1:
            raise InputError(
                f"training option attack_steps: expected 1 for n-fgsm, a single step, found "
                f"{self.attack_steps}; leave it out, or take the attack pgd"
            )

    def complete(self, data: str, epochs: int) -> Self:
        """The same options for a run, with a number in place of every None.

        Args:
            data: name of the data set, whose usual epsilon is taken.
            epochs: of the run, on which nothing depends.

        Raises:
            InputError: there is no usual epsilon for it.
        """
        epsilon = epsilon_for(data, self.epsilon, "adversarial training", "--epsilon")
        usual = Strength.usual(self.attack, epsilon, self.attack_steps)
        size = self.attack_step_size or usual.step_size
        return replace(self, epsilon=epsilon, attack_steps=usual.steps, attack_step_size=size)

    def strength(self, progress: float) -> Strength:
        """The attack when the fraction `progress` of the run's steps is done; `self` is complete.

        While epsilon rises, the number of steps rises with it: early attacks are cheap.
        """
        assert self.epsilon is not None
        assert self.attack_steps is not None
        assert self.attack_step_size is not None
        share = min(1.0, progress / self.epsilon_warmup) if self.epsilon_warmup else 1.0
        steps = max(1, math.ceil(share * self.attack_steps))
        reach = share * self.attack_steps * self.attack_step_size
        return Strength(share * self.epsilon, steps, reach / steps)

    @classmethod
    def from_dict(cls, document: object) -> Self:
        """Read what `dataclasses.asdict` made of it, from a source that is not trusted.

        Raises:
            InputError: a field is missing, unknown, of another type or out of range. Runs from before there
                were several attacks lack the fields that tell them apart.
        """
        if isinstance(document, Mapping):
            document = {"attack": "pgd", "awp": 0.0, **document}
        values: dict[str, Any] = field_values(cls, document, "options of adversarial training")
        return cls(**values)


_RANGES: dict[str, tuple[float, float]] = {
    "epsilon": (1e-6, 1),
    "attack_steps": (1, 10_000),
    "attack_step_size": (1e-9, 2),
    "epsilon_warmup": (0, 1 + 1e-9),
    "trades": (0, 1e4),
    "awp": (0, 1),
}
