"""Which of the things that have names a user picked, and which formats he wants for some of them."""

import re
from collections.abc import Iterator, Mapping, Sequence

from muquant.base.errors import InputError, naming
from muquant.format.spec import MuLawSpec

_DIGITS = 9
"""Of a number of layers."""
Layers = str | Sequence[str]
"""Which weights are meant: a text, see `pick`, or whole names."""
Override = int | MuLawSpec
"""Another width, or another format altogether."""


def pick(
    labels: Sequence[Sequence[str]], layers: Layers, what: str, weights: Sequence[str] = ()
) -> list[int]:
    """Return the places of the things that `layers` picks, at least one, in their order.

    Args:
        labels: for each thing the names that it goes by, the one to show to users first; "last:K" counts
            things that share it once.
        layers: "all", "last:K", or a regular expression that is searched in each of the names; or the whole
            names of some of `weights`.
        what: asked for them, such as "layers"; begins the messages.
        weights: their whole names, in the places of `labels`.

    Raises:
        InputError: nothing is picked; the message lists what there is.
    """
    if isinstance(layers, str):
        picked = _search(labels, layers, what)
    else:
        picked = sorted({_named(weights, name, what) for name in layers})
    if not picked:
        names = ", ".join(dict.fromkeys(names[0] for names in labels))
        raise InputError(f"{what} {layers!r} matches no layer; the layers are {names}")
    return picked


def override_specs(
    labels: Sequence[Sequence[str]],
    spec: MuLawSpec,
    overrides: Mapping[str, Override],
    weights: Sequence[str] = (),
) -> Iterator[tuple[list[int], MuLawSpec]]:
    """Yield the places that each of `overrides` picks, and their format; of several for one place the last
    counts.

    Args:
        labels: as in `pick`.
        spec: what an override that is only a width changes the width of.
        overrides: what `pick` takes, or "=NAME", which picks one of `weights` -> a width or a format.
        weights: their whole names, in the places of `labels`.

    Raises:
        InputError: an override picks nothing, or its width is out of range.
    """
    for layers, override in overrides.items():
        name, what = layers.removeprefix("="), f"override {layers!r}"
        places = pick(labels, layers, "override") if name == layers else [_named(weights, name, what)]
        with naming(what):
            own = override if isinstance(override, MuLawSpec) else spec.with_bits(override)
        yield places, own


def _named(weights: Sequence[str], name: str, what: str) -> int:
    """Return the place of the weight called `name`."""
    if name not in weights:
        raise InputError(f"{what}: no weight is called {name}; the weights are {', '.join(weights)}")
    return weights.index(name)


def _search(labels: Sequence[Sequence[str]], layers: str, what: str) -> list[int]:
    places = list(range(len(labels)))
    if layers == "all":
        return places
    if layers.startswith("last:"):
        count = layers.removeprefix("last:")
        if not count.isdecimal() or len(count) > _DIGITS or int(count) < 1:
            raise InputError(f'{what} {layers!r}: expected a count from 1 behind "last:", such as "last:3"')
        last = list(dict.fromkeys(names[0] for names in labels))[-int(count) :]
        return [place for place in places if labels[place][0] in last]
    try:
        pattern = re.compile(layers)
    except (re.error, RecursionError, OverflowError) as error:
        raise InputError(
            f'{what} {layers!r} is not a regular expression ({error}); expected "all", "last:K" or one'
        ) from error
    return [place for place in places if any(pattern.search(name) for name in labels[place])]
