"""REPORT.md documents report.json, field by field: this reads the document by it."""

import json
import re
from collections.abc import Callable, Iterator
from importlib.resources import files
from typing import Any

import pytest

from muquant.base.provenance import provenance
from muquant.robustness.report import SCHEMA, Report

FREE = {"models[].attacks.*.parameters"}
"""Objects whose fields differ from attack to attack."""

NAMED = {"versions", "models[].attacks", "models[].corruptions.accuracy"}
"""Objects whose keys are names."""

ADDED = {"command", "date", "versions", "processor", "threads"}
"""Fields that the command line adds to the report."""

TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "number": (int, float),
    "integer": int,
    "boolean": bool,
    "object": dict,
    "list": list,
    "null": type(None),
}
RANGES: dict[str, Callable[[float], bool]] = {
    "": lambda value: True,
    "0..1": lambda value: 0 <= value <= 1,
    ">= 0": lambda value: value >= 0,
    ">= 1": lambda value: value >= 1,
    "> 0": lambda value: value > 0,
}


def documented() -> dict[str, tuple[str, str]]:
    """Path -> (type, range), from the tables of REPORT.md."""
    text = (files("muquant.robustness") / "REPORT.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([^`]+)` \|([^|]*)\|([^|]*)\|", text, flags=re.MULTILINE)
    found = {path: (kind.strip(), limits.strip()) for path, kind, limits in rows}
    assert len(found) == len(rows), "a field is documented twice"
    return found


def fields(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in a document, with its path."""
    if path:
        yield path, value
    if path in FREE:
        return
    if isinstance(value, dict):
        for name, each in value.items():
            yield from fields(each, f"{path}.*" if path in NAMED else f"{path}.{name}".lstrip("."))
    elif isinstance(value, list):
        for each in value:
            yield from fields(each, f"{path}[]")


def test_every_field_is_documented_and_every_documented_field_is_there(report: Report) -> None:
    document = json.loads(json.dumps(report.to_dict()))
    assert {path for path, _ in fields(document)} == set(documented())


def test_every_value_has_the_documented_type_and_range(report: Report) -> None:
    rules = documented()
    for path, value in fields(json.loads(json.dumps(report.to_dict()))):
        kinds, limits = rules[path]
        allowed = [kind for kind in kinds.split(" or ") if isinstance(value, TYPES[kind])]
        assert allowed, f"{path} is {value!r}, which is no {kinds}"
        assert isinstance(value, bool) <= ("boolean" in kinds), path
        assert value is None or RANGES[limits](value), f"{path} is {value!r}, which is not {limits}"


def test_every_null_that_is_documented_occurs(report: Report) -> None:
    """So that the sample, and with it the test above, covers what may be missing."""
    nullable = {path for path, (kinds, _) in documented().items() if kinds.endswith(" or null")}
    nulls = {path for path, value in fields(report.to_dict()) if value is None}
    assert nulls == nullable - {"models[].worst_case", "models[].worst_case_interval"}


def test_what_the_command_line_adds_is_documented() -> None:
    paths = dict(fields(json.loads(json.dumps(provenance(["muquant", "bench"])))))
    assert set(paths) == {path for path in documented() if path.split(".")[0] in ADDED}


@pytest.mark.parametrize("name", ["established", "not established", "not assessed", "replay", SCHEMA])
def test_the_values_of_strings_are_documented(name: str) -> None:
    assert f"`{name}`" in (files("muquant.robustness") / "REPORT.md").read_text(encoding="utf-8")
