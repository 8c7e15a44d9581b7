"""An entry of the leaderboard: a network, what was done to its weights, and what attacks left of it."""

import hashlib
import re
import shutil
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Self

from muquant.base.errors import InputError
from muquant.base.files import atomic_path, make_folder, write_json
from muquant.base.reading import open_file, read_json
from muquant.base.registry import look_up
from muquant.base.values import check_fields, field_values
from muquant.training import load_run

ENTRIES, MODELS = (Path(__file__).parent / name for name in ("entries", "models"))

WEIGHTS = {
    "float": "as they were trained, 32 bits",
    "rounded": "rounded after training, without samples",
    "mapped": "the last layers mapped by the law, then all rounded uniformly, as the source does it",
    "calibrated": "rounded after training, with samples",
    "trained": "trained on with the quantizer in place",
}
"""What was done to the weights of an entry."""

_NAME = re.compile(r"[a-z0-9][a-z0-9.-]{0,63}", re.ASCII)


@dataclass(frozen=True)
class Entry:
    """One line of the leaderboard, before and after it is attacked.

    Attributes:
        name: lower-case letters, digits, "-" and ".", unique.
        data: the data set whose test images are attacked, such as "mnist".
        norm: "linf", "l2" or "l1".
        epsilon: radius, as a share of the range of a pixel.
        weights: a name of `WEIGHTS`.
        made_by: the command, or a sentence, that says how the network came about.
        author: who says so.
        control: the entry of the float network that was trained by the same recipe for as many epochs; None
            for that one itself.
        sha256: of the file: of a .mq, or of the weights of a run folder.
        figures: what `attack` measured; None before.

    Raises:
        InputError: a value is of another type or out of range.
    """

    name: str
    data: str
    norm: str
    epsilon: float
    weights: str
    made_by: str
    author: str
    control: str | None
    sha256: str
    figures: dict[str, Any] | None = None

    def __post_init__(self) -> None:
        check_fields(self, {"epsilon": (1e-6, 1e3)}, "entry's")
        look_up("weights", self.weights, WEIGHTS)
        for name in (self.name, self.control):
            if name is not None and not _NAME.fullmatch(name):
                raise InputError(
                    f"entry {name!r}: expected lower-case letters, digits, - and .; choose such a name"
                )

    @property
    def file(self) -> Path:
        """Where its .mq is kept, if it is."""
        return MODELS / f"{self.name}.mq"

    def check(self, model: Path) -> None:
        """Refuse a model that is not the one of the entry.

        Raises:
            InputError: its SHA-256 is another one.
        """
        found = digest(model)
        if found != self.sha256:
            raise InputError(
                f"{model} is not the network of the entry {self.name}: expected the SHA-256 {self.sha256}, "
                f"found {found}; restore the file, or add it as an entry of its own"
            )

    def write(self) -> Path:
        """Write it to `entries/`, and return the path."""
        path = make_folder(ENTRIES) / f"{self.name}.json"
        write_json(path, asdict(self))
        return path

    @classmethod
    def read(cls, name: str) -> Self:
        """Return an entry by its name.

        Raises:
            InputError: there is none, or its file holds something else.
        """
        look_up("entry", name, dict.fromkeys(names()))
        path = ENTRIES / f"{name}.json"
        values: dict[str, Any] = field_values(cls, read_json(path), str(path))
        entry = cls(**values)
        if entry.name != name:
            raise InputError(f"{path}: expected the name {name}, found {entry.name}; rename one of them")
        return entry


@dataclass(frozen=True, eq=False)
class Family:
    """Entries of one source, which are attacked alike.

    Attributes:
        data, norm, epsilon, made_by, author: of all of them, as in `Entry`.
        control: name of the float network among them.
        made: those that were entered, and where their networks are.
    """

    data: str
    norm: str
    epsilon: float
    made_by: str
    author: str
    control: str
    made: list[tuple[Entry, Path]] = field(default_factory=list)

    def enter(self, name: str, weights: str, model: Path, keep: bool) -> None:
        """Add a network; the arguments and errors of `Entry` and `add`."""
        entry = Entry(
            name=name,
            data=self.data,
            norm=self.norm,
            epsilon=self.epsilon,
            weights=weights,
            made_by=self.made_by,
            author=self.author,
            control=None if name == self.control else self.control,
            sha256=digest(model),
        )
        add(entry, model, keep)
        self.made.append((entry, model))


def names() -> tuple[str, ...]:
    """Those of all entries."""
    return tuple(sorted(path.stem for path in ENTRIES.glob("*.json")))


def digest(model: Path) -> str:
    """The SHA-256 of a .mq file, or of the weights of a run folder.

    Raises:
        InputError: there is no such file.
    """
    path = model / "model.safetensors" if model.is_dir() else model
    with open_file(path, "name a .mq file or a run folder") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def add(entry: Entry, model: Path, keep: bool) -> Path:
    """Write a new entry, and with `keep` copy its .mq to `models/`. What is known of the network stays.

    Returns:
        The path of the entry.

    Raises:
        InputError: the name is taken by another network, or by this one under another attack, the control is
            no entry, or the model cannot be read.
    """
    if entry.name in names():
        known = Entry.read(entry.name)
        for attribute in ("sha256", "data", "norm", "epsilon"):
            told, found = getattr(known, attribute), getattr(entry, attribute)
            if told != found:
                raise InputError(
                    f"entry {entry.name}: there is one whose {attribute} is {told}, not {found}; choose "
                    "another name"
                )
        entry = replace(entry, figures=known.figures)
    if entry.control is not None:
        look_up("control", entry.control, dict.fromkeys(names()))
    if model.is_dir():
        load_run(model)
    elif keep:
        with atomic_path(make_folder(MODELS) / entry.file.name) as temporary:
            shutil.copyfile(model, temporary)
    return entry.write()
