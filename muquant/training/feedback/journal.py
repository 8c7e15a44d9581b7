"""What feedback learning leaves in a run's folder: a log of its rounds, and pictures."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from muquant.base.errors import InputError
from muquant.base.files import make_folder, write_bytes
from muquant.base.reading import parse_json, read_bytes
from muquant.base.values import field_values
from muquant.data import Dataset
from muquant.training.feedback.pictures import plot_class_margins, plot_examples
from muquant.training.feedback.round import FeedbackRound


@dataclass(frozen=True)
class Record:
    """A line of the log: what was found before a round, or at the end.

    Attributes:
        round: 1 for the first; None for the end, at which no examples are made.
        epoch: epochs done before.
        class_margins: L2, one for each class; None where most of its samples keep their label up to the cap.
        levels: of `LEVELS`, one for each class; none at the end.
        examples: how many were made.
        seconds: that it took.
        forwards: images that the model was shown; None where they were not counted.
    """

    round: int | None
    epoch: int
    class_margins: tuple[float | None, ...]
    levels: tuple[str, ...] = ()
    examples: int = 0
    seconds: float = 0.0
    forwards: int | None = None

    @property
    def when(self) -> str:
        """Its name in the picture."""
        return "at the end" if self.round is None else f"before round {self.round}"


@dataclass(frozen=True)
class Journal:
    """The files of the rounds of a run; each is written whole or not at all.

    A run that was killed and is resumed may come to a round again: it makes the same examples, and its files
    replace those that are there.

    Attributes:
        folder: that holds them; it is made where it is missing.
        classes: their names.
        cap: L2 up to which margins were looked for.
    """

    folder: Path
    classes: Sequence[str]
    cap: float

    @property
    def log(self) -> Path:
        """One line of JSON for each round, and one for the end."""
        return self.folder / "rounds.jsonl"

    @property
    def margins(self) -> Path:
        """A picture of the margins of the classes before each round and at the end."""
        return self.folder / "class-margins.png"

    def examples(self, number: int) -> Path:
        """A picture of examples of a round; a round without any has none."""
        return self.folder / f"round-{number}.png"

    def add_round(self, made: FeedbackRound, dataset: Dataset, epoch: int, seconds: float) -> None:
        """Leave what is to be kept of a round.

        Args:
            made: the round.
            dataset: the one it was made from.
            epoch: epochs done before.
            seconds: that it took.
        """
        make_folder(self.folder)
        if len(made):
            plot_examples(made, dataset, self.examples(made.number))
        self._add(
            Record(
                made.number,
                epoch,
                _finite(made.class_margins),
                made.levels,
                len(made),
                round(seconds, 3),
                made.forwards,
            )
        )

    def add_end(self, class_margins: torch.Tensor, epoch: int, seconds: float) -> None:
        """Leave the margins of the finished model, float [classes]."""
        make_folder(self.folder)
        self._add(Record(None, epoch, _finite(class_margins), seconds=round(seconds, 3)))

    def records(self) -> tuple[Record, ...]:
        """The lines of the log; none where there is no log.

        Raises:
            InputError: it is damaged.
        """
        if not self.log.exists():
            return ()
        lines = read_bytes(self.log).splitlines()
        return tuple(self._read(number, line) for number, line in enumerate(lines, 1))

    def _add(self, record: Record) -> None:
        """Put a line behind those of earlier epochs; later ones are of a run that was killed."""
        records = [*(each for each in self.records() if each.epoch < record.epoch), record]
        lines = (json.dumps(asdict(each), allow_nan=False) + "\n" for each in records)
        write_bytes(self.log, "".join(lines).encode())
        margins = {
            each.when: torch.tensor([torch.inf if value is None else value for value in each.class_margins])
            for each in records
        }
        plot_class_margins(margins, self.classes, self.cap, self.margins)

    def _read(self, number: int, line: bytes) -> Record:
        try:
            values: dict[str, Any] = field_values(Record, parse_json(line, "it"), "a round")
            record = Record(**values)
            margins = [float(value or 0) for value in record.class_margins]
            if len(margins) != len(self.classes) or not isinstance(record.epoch, int):
                raise ValueError(line)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{self.log}, line {number}: expected a round of this run, found {line[:60]!r}; delete the "
                f"file to go on without the rounds before"
            ) from error
        return record


def _finite(margins: torch.Tensor) -> tuple[float | None, ...]:
    """JSON has no infinity."""
    return tuple(value if value < float("inf") else None for value in margins.tolist())
