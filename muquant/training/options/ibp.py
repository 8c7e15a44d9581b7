"""The options of certified training."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

from muquant.base.errors import InputError
from muquant.base.values import check_fields, field_values
from muquant.training.options.adversarial import epsilon_for


@dataclass(frozen=True)
class IbpOptions:
    """What certified training defends against, and how it gets there.

    Attributes:
        epsilon: Linf radius in units of the input range, above 0 and below 1; None is the usual one of the
            data set. The papers train MNIST with 0.4 to certify 0.3.
        start: the fraction of the run's steps, at least 0 and below 1, that train on images as they are.
        ramp: the fraction of the steps after these, above 0 and at most 1, in which epsilon rises.
        clean: weight of the images' own loss once epsilon rises, 0 to 1; above 0 each step runs
            the images as well.
        attacked: weight of the loss of attacked images once epsilon rises, 0 to 1 together with `clean`; the
            rest is that of balls (MTL-IBP: De Palma et al., "Expressive Losses for Verified Robustness via
            Convex Combinations", ICLR 2024). The attack is ATTA's two steps in the ball of the step.
        balance: weight of what keeps intervals from growing and ReLUs from leaning while epsilon rises, see
            `growth_penalty`, 0 or more; it falls to 0 as epsilon rises.

    Raises:
        InputError: a value is of another type or out of range, or start and ramp are more than the run, or
            the weights are more than 1.
    """

    epsilon: float | None = None
    start: float = 0.02
    ramp: float = 0.4
    clean: float = 0.0
    attacked: float = 0.0
    balance: float = 0.5

    def __post_init__(self) -> None:
        check_fields(self, _RANGES, "training option")
        if self.start + self.ramp > 1:
            raise InputError(
                f"training options ibp start and ramp: expected at most 1 together, found "
                f"{self.start:g} and {self.ramp:g}; epsilon has to rise within the run"
            )
        if self.clean + self.attacked > 1:
            raise InputError(
                f"training options ibp clean and attacked: expected at most 1 together, found "
                f"{self.clean:g} and {self.attacked:g}; the rest is the weight of balls"
            )

    def complete(self, data: str, epochs: int) -> Self:
        """The same options for a run, with a number in place of None; as for adversarial training."""
        epsilon = epsilon_for(data, self.epsilon, "certified training", "--ibp-epsilon")
        return replace(self, epsilon=epsilon)

    def share(self, progress: float) -> float:
        """The share of epsilon when the fraction `progress` of the steps is done, 0..1.

        It rises along a curve that begins flat: x^4 at first and straight afterwards (Xu et al., "Automatic
        Perturbation Analysis for Scalable Certified Robustness and Beyond", NeurIPS 2020), meeting at a
        quarter of the way.
        """
        x = min(max((progress - self.start) / self.ramp, 0.0), 1.0)
        bend = 0.25
        slope = 4 * bend**3  # of x^4 at the bend; scaled so that the end is 1
        top = bend**4 + slope * (1 - bend)
        return (x**4 if x < bend else bend**4 + slope * (x - bend)) / top

    @classmethod
    def from_dict(cls, document: object) -> Self:
        """Read what `dataclasses.asdict` made of it, from a source that is not trusted.

        Raises:
            InputError: a field is missing, unknown, of another type or out of range. Runs from before
                intervals were balanced or images attacked lack those fields.
        """
        if isinstance(document, Mapping):
            document = {"balance": 0.0, "attacked": 0.0, **document}
        values: dict[str, Any] = field_values(cls, document, "options of certified training")
        return cls(**values)


_RANGES: dict[str, tuple[float, float]] = {
    "epsilon": (1e-6, 1),
    "start": (0, 1),
    "ramp": (1e-6, 1 + 1e-9),
    "clean": (0, 1 + 1e-9),
    "attacked": (0, 1 + 1e-9),
    "balance": (0, 1e4),
}
