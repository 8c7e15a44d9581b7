"""`FeedbackConfig`: every number of feedback learning."""

from dataclasses import dataclass
from typing import Any, Self

from muquant.base.errors import InputError
from muquant.base.registry import look_up
from muquant.base.values import check_fields, field_values
from muquant.training.feedback.directions import DIRECTIONS


@dataclass(frozen=True)
class FeedbackConfig:
    """How the examples of a round are made, and when; the defaults are the numbers of Song, Fallon, Li (AAAI
    2021).

    The paper leaves open: rounds, start, cap, bisections and how many samples a class is judged by.

    Attributes:
        rounds: how often examples are generated and trained on, 1 or more.
        start: the fraction of the run's epochs, at least 0 and below 1, that comes before the first round.
        high_share: the most robust classes, as a fraction of all; 0..1.
        low_share: the least robust ones, likewise; together at most 1. The rest are "medium".
        high_samples: seed samples of each class of level "high", 0 or more.
        medium_samples: of level "medium".
        low_samples: of level "low".
        directions: rays that leave each seed sample, 1 or more.
        nearest: those with the smallest margins, on which examples are placed; 1..directions.
        direction_kind: a name of `DIRECTIONS`.
        placed_from: examples lie at least at this multiple of the margin; above 1, or they keep their class.
        placed_to: and below this one.
        cap: L2 distance up to which a change of label is looked for, above 0.
        bisections: how often (0, cap] is halved, 1..20: a margin is a multiple of cap / 2**bisections.
        robustness_samples: samples by whose median margin a class is judged, 1 or more.

    Raises:
        InputError: a value is of another type or out of range, or the kind of direction is unknown.
    """

    rounds: int = 3
    start: float = 0.4
    high_share: float = 0.2
    low_share: float = 0.5
    high_samples: int = 20
    medium_samples: int = 100
    low_samples: int = 150
    directions: int = 200
    nearest: int = 40
    direction_kind: str = "random"
    placed_from: float = 1.5
    placed_to: float = 2.0
    cap: float = 16.0
    bisections: int = 12
    robustness_samples: int = 50

    def __post_init__(self) -> None:
        check_fields(self, {}, "feedback option")
        for name, (low, high) in self._ranges().items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(
                    f"feedback option {name}: expected {low:g} to {high:g}, found {value}; correct it"
                )
        look_up("direction kind", self.direction_kind, DIRECTIONS)

    def complete(self, data: str, epochs: int) -> Self:
        """The same options for a run on this data set, of so many epochs.

        Raises:
            InputError: as `round_epochs`.
        """
        self.round_epochs(epochs)
        return self

    def round_epochs(self, epochs: int) -> dict[int, int]:
        """Before which epochs of a run, 0..epochs - 1, which rounds are made, 1..rounds.

        They are spread evenly over the epochs that follow the first fraction `start`, rounded to whole
        epochs.

        Raises:
            InputError: there are fewer of these than rounds.
        """
        first = round(self.start * epochs)
        left = epochs - first
        if left < self.rounds:
            raise InputError(
                f"{self.rounds} rounds of feedback learning in {epochs} epochs: expected an epoch for each, "
                f"found {left} after the first {first}; give more epochs, fewer rounds or an earlier start"
            )
        return {first + number * left // self.rounds: number + 1 for number in range(self.rounds)}

    @classmethod
    def from_dict(cls, document: object) -> Self:
        """Read what `dataclasses.asdict` made of it, from a source that is not trusted.

        Raises:
            InputError: a field is missing, unknown, of another type or out of range.
        """
        values: dict[str, Any] = field_values(cls, document, "options of feedback learning")
        return cls(**values)

    def samples(self, level: str) -> int:
        """Seed samples of a class of this level, one of `LEVELS`."""
        return {"high": self.high_samples, "medium": self.medium_samples, "low": self.low_samples}[level]

    def _ranges(self) -> dict[str, tuple[float, float]]:
        most = 1_000_000
        return {
            "rounds": (1, most),
            "start": (0, 1 - 1e-9),
            "high_share": (0, 1),
            "low_share": (0, 1 - self.high_share + 1e-9),
            "high_samples": (0, most),
            "medium_samples": (0, most),
            "low_samples": (0, most),
            "directions": (1, most),
            "nearest": (1, self.directions),
            "placed_from": (1, 100),
            "placed_to": (self.placed_from, 100),
            "cap": (1e-3, 1e3),
            "bisections": (1, 20),
            "robustness_samples": (1, most),
        }
