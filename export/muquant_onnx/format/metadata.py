"""The metadata block of a file: what a reader of the file alone should know, see FORMAT.md."""

import json
import os
import sys
from collections.abc import Collection, Mapping
from functools import cache
from types import UnionType
from typing import Any, NotRequired, TypedDict, get_args, get_origin, get_type_hints

import onnx
import onnx_ir as ir

import muquant
from muquant.base.errors import InputError, naming
from muquant.base.reading import parse_json
from muquant.format.channels import Channels
from muquant_onnx.format.packed_weight import PackedWeight

KEY = "muquant"
"""Of the block, in the model's properties."""
FORMAT = 2
"""Version of the file format that is written, see FORMAT.md; those before it are read too."""


class WeightEntry(TypedDict):
    """What the block says of one weight.

    Attributes:
        shape: of the weight.
        bits, mu, domain, granularity, levels, grid: its number format; mu as it was chosen.
        channel_axis: the axis of output channels, or a list of several.
        channel_groups: runs that axis 0 is cut into, each a channel; without it none.
        served: the forms of its uses.
    """

    shape: list[int]
    bits: int
    mu: float
    domain: str
    granularity: str
    levels: str
    grid: str
    channel_axis: int | list[int]
    channel_groups: NotRequired[int]
    served: list[str]


class Metadata(TypedDict):
    """The block.

    Attributes:
        format: of the file.
        producer: what wrote it.
        policy: that it was written with.
        weights: that the file holds, by name.
        unused: names of weights of the model that nothing in the graph uses.
    """

    format: int
    producer: str
    policy: str
    weights: dict[str, WeightEntry]
    unused: list[str]


def add_metadata(
    model: ir.Model, weights: Mapping[str, PackedWeight], policy: str, forms: Mapping[str, Collection[str]]
) -> None:
    """Describe `weights` in the metadata of `model`, in place.

    Args:
        model: that holds them.
        weights: by name.
        policy: that they are served by.
        forms: name of a weight -> the forms of its uses; without those that nothing uses.
    """
    block: Metadata = {
        "format": FORMAT,
        "producer": f"muquant {muquant.__version__}",
        "policy": policy,
        "weights": {name: _entry(weight, forms[name]) for name, weight in weights.items() if name in forms},
        "unused": sorted(set(weights) - set(forms)),
    }
    model.metadata_props[KEY] = json.dumps(block)


def _entry(weight: PackedWeight, forms: Collection[str]) -> WeightEntry:
    spec = weight.spec
    assert not isinstance(spec.mu, str)
    return {
        "shape": list(weight.shape),
        "bits": spec.bits,
        "mu": spec.mu,
        "domain": spec.domain,
        "granularity": spec.granularity,
        "levels": spec.levels,
        "grid": spec.grid_name,
        **weight.channels.to_entry(),  # type: ignore[typeddict-item]
        "served": sorted(set(forms)),
    }


def metadata_of(model: onnx.ModelProto, path: str | os.PathLike[str]) -> Metadata:
    """Return the metadata block of the model at `path`; fields that are not known here are in it too.

    Raises:
        InputError: it has none, a malformed one, or one of another format.
    """
    text = next((entry.value for entry in model.metadata_props if entry.key == KEY), None)
    if text is None:
        raise InputError(f"{path} is an ONNX file without compressed weights; name one that muquant exported")
    try:
        block: Metadata = parse_json(text, "it")
        _check_fields("metadata", block, Metadata)
        for name, entry in block["weights"].items():
            _check_fields(name, entry, WeightEntry)
            with naming(name):
                Channels.from_entry(entry).check(tuple(entry["shape"]))
    except ValueError as error:
        raise InputError(f"{path}: its muquant metadata is malformed ({error}); export it again") from error
    if not 1 <= block["format"] <= FORMAT:
        found = block["format"]
        raise InputError(f"{path} has the format {found}, expected 1 to {FORMAT}; use a newer muquant")
    return block


def _check_fields(what: str, document: Any, fields: type) -> None:
    """Raise ValueError where a field that a reader relies on is missing or of another type."""
    if not isinstance(document, dict):
        raise ValueError(f"{what} is no object")
    for field, kind in _hints(fields).items():
        value = document.get(field)
        missing = field not in document and field not in fields.__required_keys__  # type: ignore[attr-defined]
        if not missing and not _is_of(value, kind):
            raise ValueError(f"{what}: {field} is {value!r:.60}")


_hints = cache(get_type_hints)


def _is_of(value: object, kind: Any) -> bool:
    """Whether a JSON value is of the type that a field states; a float may be whole, and is finite."""
    if isinstance(kind, UnionType):
        return any(_is_of(value, each) for each in get_args(kind))
    outer = get_origin(kind) or kind
    if not isinstance(value, (int, float) if outer is float else outer) or isinstance(value, bool):
        return False
    if outer is float and not -sys.float_info.max <= value <= sys.float_info.max:
        return False
    return not isinstance(value, list) or all(type(item) in get_args(kind) for item in value)
