"""The names in a file by which its writer and its readers understand each other, see FORMAT.md.

What belongs to a weight NAME is called NAME.part or, where there are several of a kind, NAME.part.N. `Part`
is what readers look for. Other parts are words of whoever makes them; `label` makes names of them too.
"""

import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from typing import NamedTuple


class Part(StrEnum):
    """Initializers and outputs of nodes that a reader finds by the name of their weight."""

    PACKED = "packed"
    """Initializer: the codes."""
    MU = "mu"
    """Initializer: mu of the expansion."""
    SHAPE = "shape"
    """Initializer: shape of the weight."""
    STEP = "step"
    """The steps: an initializer, or decoded from 8 bits."""
    STEP_CODES = "step_codes"
    """Initializer: the steps in 8 bits."""
    STEP_UNIT = "step_unit"
    """Initializer: what steps in 8 bits are multiples of."""
    SCALE = "scale"
    """The steps as `DequantizeLinear` takes them: an initializer, or decoded from 8 bits."""
    SCALE_CODES = "scale_codes"
    """Initializer: these in 8 bits, of the same unit."""
    LEVELS = "levels"
    """The k, as the decode function gives them."""
    OWN_LEVELS = "own_levels"
    """The same, for a use behind the first."""
    PLACES = "places"
    """The j of k = 2 j + 1, as the decode function gives them."""
    OWN_PLACES = "own_places"
    """The same, for a use behind the first."""
    KERNEL_CODES = "kernel_codes"
    """The integers that a `MatMulNBits` takes, as the decode function gives them."""
    KERNEL_MATRIX = "kernel_matrix"
    """The same of a weight stored as [inputs, outputs], before they are turned."""
    DECODED = "decoded"
    """The weight, float32."""
    ROUNDED = "rounded"
    """The weight, rounded to a half type."""
    DEQUANTIZED = "dequantized"
    """The weight [inputs, outputs], by `DequantizeLinear`."""
    DEQUANTIZED_PLACES = "dequantized_places"
    """Likewise, of the j and two steps: it lacks a step in every weight."""

    @property
    def own(self) -> "Part":
        """What the levels or places of a use behind the first are called."""
        return {Part.LEVELS: Part.OWN_LEVELS, Part.PLACES: Part.OWN_PLACES}[self]


class Label(NamedTuple):
    """A name, taken apart.

    Attributes:
        weight: the name of the weight.
        part: of the weight.
        number: behind it, or None.
    """

    weight: str
    part: Part
    number: int | None = None


_LABEL = re.compile(rf"(?P<weight>.+)\.(?P<part>{'|'.join(Part)})(\.(?P<number>0|[1-9][0-9]*))?", re.DOTALL)


def label(name: str, part: str, number: int | None = None) -> str:
    """Return NAME.part, or NAME.part.number."""
    return f"{name}.{part}" if number is None else f"{name}.{part}.{number}"


def parse_label(name: str | None) -> Label | None:
    """Return what `label` made `name` of, where the part is one of `Part`; None for other names."""
    match = _LABEL.fullmatch(name or "")
    if match is None:
        return None
    number = match["number"]
    return Label(match["weight"], Part(match["part"]), None if number is None else int(number))


def owners(name: str) -> Iterator[str]:
    """Yield every NAME of which `name` may be a part, whatever the part: what is in front of each dot."""
    return (name[: dot.start()] for dot in re.finditer(r"\.", name))


def weight_names(sources: Iterable[str], taken: Iterable[str]) -> list[str]:
    """Return a name for each weight of a graph, such that those of its parts clash with nothing.

    Args:
        sources: what the weights are called there; a name stays as it is where it can.
        taken: all names in the graph.
    """
    used = set(taken)
    stems = {stem for name in used for stem in owners(name)}
    names: list[str] = []
    for source in sources:
        plain = re.sub(r"[^\w.:/-]+", "_", source) or "weight"
        name, number = plain, 0
        while name in stems or name in names or (name != source and name in used):
            number += 1
            name = f"{plain}_{number}"
        names.append(name)
        stems.update(owners(name))
    return names
